//! Clients that mean no good, and bytes that nobody would send.

use anyhow::{Context, Result, ensure};

use crate::accept::Verdict;
use crate::command::{Call, cargo, last_lines};

/// The tests of the gateway that play such clients.
pub fn tests() -> Result<Verdict> {
    let words = ["test", "--package", "tl-gateway", "--test", "it", "abuse::"];
    let (status, printed) = cargo(words).verdict()?;
    ensure!(status.success(), "ended with {status}: {}", last_lines(&printed, 20));
    let passed = passed(&printed)?;
    ensure!(passed > 0, "no test has abuse in its name");
    Ok(Verdict::Ok(format!("{passed} tests")))
}

/// How many tests passed, from the line that cargo ends with.
fn passed(printed: &str) -> Result<u64> {
    let rest = printed.lines().find_map(|line| line.strip_prefix("test result: ok. "));
    let number = rest.and_then(|rest| rest.split(' ').next());
    number.and_then(|number| number.parse().ok()).context("the tests told no result")
}

/// Every fuzz body, so many minutes each.
pub fn fuzz(minutes: u32) -> Result<Verdict> {
    let own = std::env::current_exe().context("cannot find this executable")?;
    let printed = Call::new(own).args(["fuzz", "--minutes", &minutes.to_string()]).output()?;
    let (targets, executions) = executions(&printed)?;
    Ok(Verdict::Ok(format!("{targets} targets, {minutes} min each, {executions} executions")))
}

/// Adds up `NAME · N executions · …`, a line per target.
fn executions(printed: &str) -> Result<(u64, u64)> {
    let (mut targets, mut total) = (0, 0);
    for line in printed.lines() {
        let Some((_, rest)) = line.split_once(" · ") else { continue };
        let Some((number, _)) = rest.split_once(" executions") else { continue };
        let number: u64 = number.parse().with_context(|| line.to_owned())?;
        ensure!(number > 0, "nothing was executed: {line}");
        targets += 1;
        total += number;
    }
    ensure!(targets > 0, "no target ran");
    Ok((targets, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_and_executions_are_counted() {
        let line = "test result: ok. 19 passed; 0 failed; 0 ignored";
        assert_eq!(passed(&format!("running\n{line}")).unwrap(), 19);
        assert!(passed("error: could not compile").is_err());
        let lines =
            "built\nwal · 70 executions · 2.00 min · ok\nbody · 5 executions · 2.00 min · ok";
        assert_eq!(executions(lines).unwrap(), (2, 75));
        assert!(executions("wal · 0 executions · 2.00 min · ok").is_err());
        assert!(executions("").is_err());
    }
}
