//! Who is stranded, and what can be done about it: pure.

use std::collections::BTreeMap;

/// When a container was started. Docker writes it in UTC without trailing zeros, so the texts without the `Z`
/// are in the order of time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Start(String);

impl Start {
    /// `None` if it is of another form, of which nothing could be told.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.strip_suffix('Z')?;
        let (second, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let form = "0000-00-00T00:00:00";
        let same = |(c, f): (char, char)| c == f || (f == '0' && c.is_ascii_digit());
        let formed = second.len() == form.len() && second.chars().zip(form.chars()).all(same);
        let digits = !fraction.is_empty() && fraction.chars().all(|c| c.is_ascii_digit());
        (formed && digits).then(|| Self(text.to_owned()))
    }
}

/// A container, as the list of all has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Listed {
    /// Its number.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its service of a compose file, unless it is a one-off of that.
    pub service: Option<String>,
    /// Whether it runs.
    pub running: bool,
    /// `none`, `bridge`, `container:<id>`.
    pub network: String,
}

/// What is called so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// This container.
    One(&'a Listed),
    /// None.
    Nothing,
    /// Services of several projects.
    Several,
}

/// The container with this name, or else the one of the service with this name.
pub(super) fn find<'a>(name: &str, all: &'a [Listed]) -> Found<'a> {
    if let Some(named) = all.iter().find(|it| it.name == name) {
        return Found::One(named);
    }
    let of_service: Vec<_> = all
        .iter()
        .filter(|it| it.service.as_deref() == Some(name))
        .collect();
    // While compose makes one anew, the old one is still there, and stopped.
    let running: Vec<_> = of_service.iter().copied().filter(|it| it.running).collect();
    match (of_service.as_slice(), running.as_slice()) {
        ([], _) => Found::Nothing,
        ([one], _) | (_, [one]) => Found::One(one),
        _ => Found::Several,
    }
}

/// Whose network a container has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Joined {
    /// The gateway's.
    Gateway,
    /// That of a container which is not there any more.
    Gone,
}

/// Whose network this container has; `None` if that is no affair of ours: its own, or another container's.
pub(super) fn joined(it: &Listed, gateway: &Listed, all: &[Listed]) -> Option<Joined> {
    let other = it.network.strip_prefix("container:")?;
    if other == gateway.id || other == gateway.name {
        return Some(Joined::Gateway);
    }
    let there = all.iter().any(|any| any.id == other || any.name == other);
    (!there).then_some(Joined::Gone)
}

/// The gateway's container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gateway {
    /// When it was started.
    pub start: Start,
    /// Whether it holds its namespace: it is healthy, or runs and has no check.
    pub ready: bool,
}

/// A running container whose network is another one's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dependant {
    /// Its number.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its service.
    pub service: Option<String>,
    /// Whose network it has.
    pub joined: Joined,
    /// When it was started.
    pub start: Start,
}

/// What to do for a stranded container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Start it again: Docker then joins it to the gateway as it is now.
    Restart {
        /// Its number.
        id: String,
        /// Its name.
        name: String,
    },
    /// Say what its operator has to do. Docker knows the gateway by a number that is gone.
    Tell {
        /// Its name.
        name: String,
        /// A command line, or what comes next to one.
        cure: String,
    },
}

/// What was done already: of each container the start of the gateway that it was done for.
#[derive(Clone, Debug, Default)]
pub(super) struct Done(BTreeMap<String, (Joined, Start)>);

/// What to do now. Nothing is done twice for one start of the gateway, whatever came of it, and nothing before
/// the gateway is ready: a program that starts earlier would be in a namespace that nobody holds yet.
pub(super) fn decide(gateway: &Gateway, dependants: &[Dependant], done: &mut Done) -> Vec<Action> {
    if !gateway.ready {
        return Vec::new();
    }
    let stranded = dependants.iter().filter(|it| it.stranded(gateway));
    let fresh = stranded.filter(|it| {
        let now = (it.joined, gateway.start.clone());
        done.0.insert(it.id.clone(), now.clone()) != Some(now)
    });
    fresh.map(Dependant::action).collect()
}

impl Dependant {
    fn stranded(&self, gateway: &Gateway) -> bool {
        match self.joined {
            Joined::Gateway => gateway.start > self.start,
            Joined::Gone => true,
        }
    }

    fn action(&self) -> Action {
        let name = self.name.clone();
        match (self.joined, &self.service) {
            (Joined::Gateway, _) => Action::Restart {
                id: self.id.clone(),
                name,
            },
            (Joined::Gone, Some(service)) => Action::Tell {
                name,
                cure: format!("docker compose up -d --force-recreate {service}"),
            },
            (Joined::Gone, None) => Action::Tell {
                cure: format!("docker rm -f {name}, then run it as before"),
                name,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u32) -> Start {
        Start::parse(&format!("2026-11-24T09:00:{second:02}.5Z")).unwrap()
    }

    fn gateway(second: u32) -> Gateway {
        Gateway {
            start: at(second),
            ready: true,
        }
    }

    fn dependant(id: &str, second: u32) -> Dependant {
        Dependant {
            id: id.to_owned(),
            name: format!("lab_{id}_1"),
            service: Some(id.to_owned()),
            joined: Joined::Gateway,
            start: at(second),
        }
    }

    fn restart(id: &str) -> Action {
        Action::Restart {
            id: id.to_owned(),
            name: format!("lab_{id}_1"),
        }
    }

    #[test]
    fn who_was_started_before_the_gateway_is_restarted_and_nobody_else() {
        let both = [dependant("old", 1), dependant("new", 3)];
        let actions = decide(&gateway(2), &both, &mut Done::default());
        assert_eq!(actions, [restart("old")]);
        assert!(decide(&gateway(1), &both, &mut Done::default()).is_empty());
    }

    #[test]
    fn nobody_is_restarted_before_the_gateway_holds_its_namespace() {
        let (old, mut done) = ([dependant("old", 1)], Done::default());
        let starting = Gateway {
            ready: false,
            ..gateway(2)
        };
        assert!(decide(&starting, &old, &mut done).is_empty());
        assert_eq!(decide(&gateway(2), &old, &mut done), [restart("old")]);
    }

    #[test]
    fn once_for_each_start_of_the_gateway_whatever_came_of_it() {
        let (old, mut done) = ([dependant("old", 1)], Done::default());
        assert_eq!(decide(&gateway(2), &old, &mut done), [restart("old")]);
        assert!(decide(&gateway(2), &old, &mut done).is_empty());
        assert_eq!(decide(&gateway(4), &old, &mut done), [restart("old")]);
    }

    #[test]
    fn who_joined_a_container_that_is_gone_is_named_once_with_the_cure() {
        let gone = Dependant {
            joined: Joined::Gone,
            ..dependant("app", 9)
        };
        let by_hand = Dependant {
            id: "other".to_owned(),
            service: None,
            ..gone.clone()
        };
        let mut done = Done::default();
        let tell = |cure: &str| Action::Tell {
            name: "lab_app_1".to_owned(),
            cure: cure.to_owned(),
        };
        assert_eq!(
            decide(&gateway(2), &[gone.clone(), by_hand], &mut done),
            [
                tell("docker compose up -d --force-recreate app"),
                tell("docker rm -f lab_app_1, then run it as before"),
            ]
        );
        assert!(decide(&gateway(2), &[gone], &mut done).is_empty());
    }

    #[test]
    fn starts_are_in_the_order_of_time_and_other_forms_are_none() {
        let start = |text: &str| Start::parse(text);
        let times = [
            "2026-11-24T09:00:00Z",
            "2026-11-24T09:00:00.45Z",
            "2026-11-24T09:00:00.5Z",
            "2026-11-24T09:00:01Z",
        ];
        assert!(times.map(start).is_sorted() && times.iter().all(|t| start(t).is_some()));
        for wrong in [
            "",
            "Z",
            "2026-11-24T09:00:00+02:00",
            "2026-11-24T09:00:00.Z",
            "2026-11-24 09:00:00Z",
            "2026-11-24T09:00:0éZ",
        ] {
            assert_eq!(start(wrong), None, "{wrong}");
        }
    }

    fn listed(id: &str, name: &str, network: &str) -> Listed {
        Listed {
            id: id.to_owned(),
            name: name.to_owned(),
            service: Some("vpngw".to_owned()),
            running: true,
            network: network.to_owned(),
        }
    }

    #[test]
    fn only_who_joined_the_gateway_or_nobody_concerns_us() {
        let gateway = listed("01", "vpngw", "bridge");
        let all = [
            gateway.clone(),
            listed("02", "a", "container:01"),
            listed("03", "b", "container:vpngw"),
            listed("04", "c", "container:02"),
            listed("05", "d", "container:99"),
            listed("06", "e", "none"),
            listed("07", "f", "host"),
        ];
        let whose = all.iter().map(|it| joined(it, &gateway, &all));
        let (ours, gone) = (Some(Joined::Gateway), Some(Joined::Gone));
        let expected = [None, ours, ours, None, gone, None, None];
        assert!(whose.eq(expected));
    }

    #[test]
    fn a_name_is_that_of_a_container_or_else_of_a_service() {
        let stopped = Listed {
            running: false,
            ..listed("01", "a_vpngw_1", "bridge")
        };
        let all = [
            stopped.clone(),
            listed("02", "b_vpngw_1", "bridge"),
            listed("03", "c_vpngw_1", "bridge"),
        ];
        assert_eq!(find("a_vpngw_1", &all), Found::One(&stopped));
        assert_eq!(find("vpngw", &all), Found::Several);
        assert_eq!(find("vpngw", &all[..2]), Found::One(&all[1]));
        assert_eq!(find("vpngw", &all[..1]), Found::One(&stopped));
        assert_eq!(find("vpn", &all), Found::Nothing);
    }
}
