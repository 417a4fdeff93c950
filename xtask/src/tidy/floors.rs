//! Dependencies go down.
//!
//! Every manifest states its floor. A normal or build dependency on another package of this
//! repository must stand on a strictly lower floor. Two kinds are free: development
//! dependencies (a test may use what it likes), and the simulator, which only the binary and
//! the chores may use: it stands beside the floors because it drives all of them.

use super::metadata::{Package, metadata};

/// Packages that stand beside the floors.
const BESIDE: [&str; 2] = ["tl-sim", "xtask"];
/// Who may use a package that stands beside the floors.
const MAY_LOOK_BESIDE: [&str; 2] = ["throughline", "xtask"];

fn floor(package: &Package) -> Option<u64> {
    package.metadata.get("throughline")?.get("floor")?.as_u64()
}

fn allowed(from: &str, from_floor: u64, to: &str, to_floor: u64) -> bool {
    if BESIDE.contains(&to) {
        return MAY_LOOK_BESIDE.contains(&from);
    }
    BESIDE.contains(&from) || to_floor < from_floor
}

#[test]
fn every_manifest_states_its_floor() {
    for package in metadata().members() {
        assert!(
            floor(package).is_some(),
            "{}: no package.metadata.throughline.floor",
            package.name
        );
    }
}

#[test]
fn dependencies_go_to_lower_floors_only() {
    let mut wrong = Vec::new();
    for package in metadata().members() {
        for dependency in &package.dependencies {
            if dependency.path.is_none() || dependency.kind.as_deref() == Some("dev") {
                continue;
            }
            let target = metadata().members().find(|other| other.name == dependency.name).unwrap();
            let (from, to) = (floor(package).unwrap(), floor(target).unwrap());
            if !allowed(&package.name, from, &target.name, to) {
                wrong.push(format!("{} ({from}) uses {} ({to})", package.name, target.name));
            }
        }
    }
    assert!(wrong.is_empty(), "looking up or sideways: {wrong:#?}");
}

#[test]
fn sideways_and_upward_are_refused() {
    assert!(allowed("tl-raft", 2, "tl-wal", 1));
    assert!(!allowed("tl-wal", 1, "tl-core", 1));
    assert!(!allowed("tl-core", 1, "tl-raft", 2));
    assert!(!allowed("tl-engine", 3, "tl-sim", 6));
    assert!(allowed("throughline", 5, "tl-sim", 6));
}
