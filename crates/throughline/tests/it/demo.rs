//! The tour, as its users run it.

use crate::tl::{command, ran};

#[test]
fn the_demo_verifies_itself_and_exits() {
    // An empty folder: no fetched data set is near.
    let folder = tempfile::tempdir().unwrap();
    let ran = ran(command("demo --exit --json").current_dir(folder.path()));
    assert_eq!(ran.code, 0, "{ran:?}");
    let result = ran.json();
    assert_eq!(result["verified"], true);
    assert_eq!((&result["lost"], &result["doubled"]), (&0.into(), &0.into()));
    assert_eq!(result["events"], result["present"]);
    assert_eq!(result["events"], result["tail_events"]);
    assert!(result["retries_deduped"].as_u64().unwrap() > 0, "{result}");
}
