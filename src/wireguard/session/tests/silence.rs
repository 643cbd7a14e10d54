//! When a server counts as dead: soon if it is, idle or not, and not because some packets are lost.

use super::*;

/// Two sessions, what is lost between them, and what each sends by itself.
struct World {
    a: Session,
    b: Session,
    start: Instant,
    /// Of a hundred packets, how many are lost.
    loss: u64,
    /// `b` is gone.
    dead: bool,
    random: u64,
    handshakes: u32,
}

impl World {
    fn new(loss: u64, seed: u64) -> Self {
        let (a, mut b) = connected();
        // It counts by the clock of the machine, which stands still here.
        b.limiter = RateLimiter::new(&(*b.identity.public()).into(), u64::MAX);
        Self {
            a,
            b,
            start: Instant::now(),
            loss,
            dead: false,
            random: seed | 1,
            handshakes: 0,
        }
    }

    /// A xorshift generator (Marsaglia 2003): the same seed, the same losses.
    fn is_lost(&mut self) -> bool {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.dead || self.random % 100 < self.loss
    }

    /// Carries a message of `a` over, and what follows from it.
    fn carry(&mut self, now: Instant, message: Vec<u8>) {
        let (mut message, mut to_b) = (message, true);
        let mut dst = vec![0; 2000];
        while !self.is_lost() {
            let to = if to_b { &mut self.b } else { &mut self.a };
            match to.open(now, &message, &mut dst) {
                Opened::Reply(len) => message = dst[..len].to_vec(),
                // The other end answers each packet.
                Opened::Packet(_) if to_b => {
                    match self.b.seal(now, &packet(60, 2), MTU, &mut dst) {
                        Sealed::Send(len) => message = dst[..len].to_vec(),
                        Sealed::Queued | Sealed::Ask(_) | Sealed::Exhausted => return,
                    }
                }
                Opened::Packet(_) | Opened::Nothing | Opened::Rejected => return,
            }
            to_b = !to_b;
        }
    }

    /// Lets time pass until a silence is told of, at most so long. `a` sends a packet each so many ticks.
    fn until_silent(&mut self, most: Duration, every: Option<u32>) -> Option<Duration> {
        let mut dst = vec![0; 2000];
        for tick in 1..=(most.as_millis() / TICK.as_millis()) as u32 {
            let now = self.start + TICK * tick;
            if let Some(len) = self.a.tick(now, &mut dst) {
                self.handshakes += u32::from(len == INITIATION);
                self.carry(now, dst[..len].to_vec());
            }
            if every.is_some_and(|every| tick % every == 0)
                && let Sealed::Send(len) | Sealed::Ask(len) =
                    self.a.seal(now, &packet(60, 1), MTU, &mut dst)
            {
                self.carry(now, dst[..len].to_vec());
            }
            if self.a.take_silence() {
                return Some(now - self.start);
            }
        }
        None
    }
}

#[test]
fn a_dead_server_is_noticed_within_35_s_whether_programs_send_or_not() {
    for every in [None, Some(1), Some(4), Some(200)] {
        let mut world = World::new(0, 1);
        world.dead = true;
        let noticed = world.until_silent(Duration::from_secs(90), every);
        let noticed = noticed.expect("it is noticed");
        assert!(noticed <= Duration::from_secs(35), "{every:?}: {noticed:?}");
        assert!(noticed >= UNHEARD, "{every:?}: {noticed:?}");
    }
}

#[test]
fn a_server_that_lives_is_never_silent_though_a_third_of_all_packets_is_lost() {
    for seed in 1..=20 {
        let mut world = World::new(30, seed * 7919);
        let silent = world.until_silent(Duration::from_secs(600), Some(4));
        assert_eq!(silent, None, "{seed}");
    }
}

#[test]
fn an_idle_server_is_asked_now_and_then_and_stays() {
    let mut world = World::new(0, 1);
    assert_eq!(world.until_silent(Duration::from_secs(300), None), None);
    // One in 18 s.
    assert!(
        (14..=17).contains(&world.handshakes),
        "{}",
        world.handshakes
    );
    // With one in twenty lost, as on a bad line, an hour goes by.
    for seed in 1..=5 {
        let mut world = World::new(5, seed * 7919);
        let silent = world.until_silent(Duration::from_secs(3600), None);
        assert_eq!(silent, None, "{seed}");
    }
}

/// What a machine missed while it slept is no silence: the server was not asked.
#[test]
fn a_long_sleep_is_no_silence() {
    let mut world = World::new(0, 1);
    world.start += Duration::from_secs(3600);
    assert_eq!(world.until_silent(Duration::from_secs(60), None), None);
}

#[test]
fn a_server_that_answers_handshakes_and_forwards_nothing_is_told_of() {
    let (mut a, mut b) = connected();
    b.limiter = RateLimiter::new(&(*b.identity.public()).into(), u64::MAX);
    let start = Instant::now();
    let mut dst = vec![0; 2000];
    let (mut told, mut asked) = (None, 0);
    for tick in 1..=400 {
        let now = start + TICK * tick;
        if let Some(len) = a.tick(now, &mut dst) {
            let message = dst[..len].to_vec();
            // It answers handshakes, and sends what a session sends by itself.
            if let Opened::Reply(len) = b.open(now, &message, &mut dst) {
                let reply = dst[..len].to_vec();
                a.open(now, &reply, &mut dst);
            }
        }
        if tick % 4 == 0
            && let Sealed::Send(len) = a.seal(now, &packet(60, 1), MTU, &mut dst)
        {
            let sent = dst[..len].to_vec();
            b.open(now, &sent, &mut dst);
        }
        if let Some(len) = b.tick(now, &mut dst) {
            let message = dst[..len].to_vec();
            a.open(now, &message, &mut dst);
        }
        asked += u32::from(a.wants_return(now));
        if a.take_return() == Some(Return::Missing) {
            told = Some(now - start);
            break;
        }
        assert!(!a.take_silence(), "{tick}");
    }
    let told = told.expect("it is told");
    assert!((60..=62).contains(&told.as_secs()), "{told:?}");
    assert!(asked >= 6, "{asked}");
}
