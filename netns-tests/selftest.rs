//! The lab itself: what the tests rely on is there, and the sensor sees what it must.

use std::time::{Duration, SystemTime};

use crate::lab::tunnel::ask;
use crate::lab::{HOST, Lab, at};

#[test]
fn the_lab_has_an_internet() {
    let lab = Lab::new();
    let answer = ask(&lab.ns, "app", at(HOST, 7), Duration::from_secs(5));
    assert_eq!(answer.as_deref(), Some("outside 172.30.0.2 hello"));
    lab.sensor.drain();
    assert!(lab.sensor.tally().frames > 0);
}

#[test]
#[should_panic(expected = "leaked")]
fn the_sensor_fails_a_test_that_leaks() {
    let lab = Lab::new();
    lab.sensor.arm(SystemTime::now());
    ask(&lab.ns, "app", at(HOST, 7), Duration::from_secs(5)).unwrap();
    lab.sensor.verdict();
}
