//! A slip at the command line changes nothing, and wrong arguments of a container leave nothing open.

use crate::lab::Lab;
use crate::lab::gateway::PROGRAM;

fn tables(lab: &Lab) -> String {
    lab.app("nft list tables")
}

#[test]
fn a_slip_of_a_person_changes_nothing() {
    let lab = Lab::new();
    for line in ["stauts", "doctr", "-v", "--foo", "versoin"] {
        let done = lab.ns.output("app", &format!("{PROGRAM} {line}"));
        assert_eq!(done.status.code(), Some(2), "{line}");
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(!said.contains("--allow-host"), "{line}: {said}");
        assert_eq!(tables(&lab), "", "{line}");
    }
    for line in ["help", "version", "help run", "--version"] {
        let done = lab.ns.output("app", &format!("{PROGRAM} {line}"));
        assert!(done.status.success(), "{line}: {done:?}");
        assert_eq!(tables(&lab), "", "{line}");
    }
}

#[test]
fn wrong_arguments_of_run_close_it() {
    closes("run --bogus");
}

#[test]
fn wrong_arguments_of_a_warden_close_it() {
    closes("warden --bogus");
}

fn closes(line: &str) {
    let lab = Lab::new();
    let done = lab.ns.output("app", &format!("{PROGRAM} {line}"));
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(done.status.code(), Some(2), "{line}");
    assert!(said.contains("`vpngw cleanup` opens it"), "{said}");
    assert!(tables(&lab).contains("vpngw"), "{line}");
}

/// As process 1 a wrong word stands in the place of `run`.
#[test]
fn a_wrong_word_as_a_containers_command_leaves_nothing_open() {
    let lab = Lab::new();
    let line = format!("unshare --pid --fork --mount-proc {PROGRAM} rnu");
    let done = lab.ns.output("app", &line);
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(
        said.contains("nothing leaves this namespace any more"),
        "{said}"
    );
    assert!(tables(&lab).contains("vpngw"), "{said}");
}
