//! A fault to order, for the namespace tests: SIGUSR2 makes the half that gets it panic. Only a build
//! with the feature `netns` has it.

/// Panics when the fault is ordered; pending until then.
#[cfg(feature = "netns")]
pub async fn injected() {
    use tokio::signal::unix::{SignalKind, signal};

    let Ok(mut ordered) = signal(SignalKind::user_defined2()) else {
        return std::future::pending().await;
    };
    ordered.recv().await;
    panic!("a fault, as ordered");
}

/// Pending for ever.
#[cfg(not(feature = "netns"))]
pub async fn injected() {
    std::future::pending().await
}
