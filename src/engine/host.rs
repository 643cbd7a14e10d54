//! All effects of the engine in one place: what the gateway decides is done here.

use std::collections::BTreeMap;
use std::net::{SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tracing::{debug, error, info, warn};

use super::EngineError;
use super::confirm::{Commands, Heard};
use super::lookup::look_up;
use super::open;
use super::portal::Portal;
use super::rate::Rate;
use super::status::{self, Parts};
use super::uplink::Uplink;
use crate::config::{Config, Host as Name, PublicKey};
use crate::control::api::{Report, Status, Topology};
use crate::gateway::{Action, Event, Gateway};
use crate::leak::evidence::Evidence;
use crate::link::{Decline, Facts, Link, LinkError, Listener, Offer, ToEngine, ToWarden, Visitor};
use crate::metrics::Sample;
use crate::net::{Fwmark, Stamp};
use crate::policy::{IntoTunnel, Permit};
use crate::wireguard::Device;
use crate::wireguard::uapi::{self, UapiState};

/// The engine's hands.
pub(super) struct Host {
    pub(super) link: Link,
    pub(super) uplink: Uplink,
    /// The LAN exceptions of the sealed topology.
    pub(super) portal: Portal,
    /// A configuration that the warden was asked to agree to.
    offered: Option<Config>,
    device: Arc<Device>,
    pub(super) config: Config,
    mtu: u16,
    facts: Facts,
    /// When they came.
    pub(super) heard: Heard,
    /// What operators said.
    pub(super) commands: Commands,
    /// What the sensors saw last.
    evidence: Vec<Evidence>,
    /// Number of the last question to the warden; an answer to an older one is stale.
    asked: u64,
    /// The socket that came with the last permission, and where it leads.
    granted: Option<(UdpSocket, SocketAddrV4)>,
    lookup: Option<JoinHandle<()>>,
    /// Answers wg(8); it holds the data plane.
    uapi: Option<AbortHandle>,
    /// A listener for metrics that the warden opened meanwhile.
    metrics: Option<TcpListener>,
    /// Why metrics are not served.
    metrics_trouble: Option<watch::Receiver<Option<String>>>,
    /// Where answers to our questions come that the warden does not give: the number of the question, and
    /// the outcome.
    found: mpsc::UnboundedSender<(u64, Event)>,
    rx: Rate,
    tx: Rate,
    /// The peer and the socket that are in use, for `wg show`.
    shown: watch::Sender<UapiState>,
    /// Tunnels opened after the first one, by what ended the one before.
    reopened: BTreeMap<String, u64>,
    /// What will have ended the tunnel in use when the next one opens; `None` before the first.
    cause: Option<&'static str>,
    opened: bool,
    /// Messages that were no valid ones until the last tunnel was opened.
    rejected: u64,
    /// Who waits to hear what was stopped. One answer of the warden is for all of them.
    curious: Vec<oneshot::Sender<Report>>,
}

impl Host {
    pub(super) fn new(
        link: Link,
        uplink: Uplink,
        device: Device,
        welcome: super::Known,
        found: mpsc::UnboundedSender<(u64, Event)>,
        now: Instant,
    ) -> Self {
        let super::Known { config, mtu, facts } = welcome;
        let mut portal = Portal::default();
        if let Uplink::Own(_) = uplink {
            portal.follow(&config.lan);
        }
        Self {
            link,
            uplink,
            portal,
            offered: None,
            device: Arc::new(device),
            config,
            mtu,
            facts,
            heard: Heard::at(now),
            commands: Commands::default(),
            evidence: Vec::new(),
            found,
            asked: 0,
            granted: None,
            lookup: None,
            uapi: None,
            metrics: None,
            metrics_trouble: None,
            rx: Rate::default(),
            tx: Rate::default(),
            shown: watch::channel(UapiState::default()).0,
            reopened: BTreeMap::new(),
            cause: None,
            opened: false,
            rejected: 0,
            curious: Vec::new(),
        }
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    pub(super) fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Where it is heard of that metrics are not served.
    pub(super) fn note_metrics(&mut self, trouble: watch::Receiver<Option<String>>) {
        self.metrics_trouble = Some(trouble);
    }

    /// A listener for metrics that the warden opened since this was last asked.
    pub(super) fn given_metrics(&mut self) -> Option<TcpListener> {
        self.metrics.take()
    }

    /// What the sensors saw last, the newest at the end.
    pub(super) fn evidence(&self) -> Vec<Evidence> {
        self.evidence.clone()
    }

    /// Answers `wg show` on the listener that the warden handed over.
    pub(super) fn serve_uapi(&mut self, listener: Option<UnixListener>) {
        let Some(listener) = listener else { return };
        if let Some(before) = self.uapi.take() {
            before.abort();
        }
        let listener = match tokio::net::UnixListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => {
                warn!(%error, "`wg show` will not answer");
                return;
            }
        };
        let (shown, device) = (self.shown.subscribe(), Arc::clone(&self.device));
        let serve = uapi::serve(listener, move || {
            status::shown(&shown.borrow(), &device.snapshot())
        });
        self.uapi = Some(tokio::spawn(serve).abort_handle());
    }

    /// The warden's next message; `None` when it is gone.
    pub(super) async fn receive(&self) -> Result<Option<(ToEngine, Vec<OwnedFd>)>, LinkError> {
        self.link.receive().await
    }

    /// Takes a message in; returns what it means to the gateway.
    pub(super) fn take(
        &mut self,
        message: ToEngine,
        fds: Vec<OwnedFd>,
        now: Instant,
    ) -> Result<Option<Event>, EngineError> {
        match message {
            ToEngine::Welcome { .. } => Err(EngineError::Protocol("a second welcome".to_owned())),
            ToEngine::Granted { id, .. } if id != self.asked => Ok(None),
            ToEngine::Granted { permit, remote, .. } => {
                let socket = fds.into_iter().next().map(UdpSocket::from);
                self.granted = socket.zip(remote);
                Ok(Some(Event::Granted(permit)))
            }
            ToEngine::Refused { id, permit, why } if id == self.asked => {
                Ok(Some(Event::Refused { permit, why }))
            }
            ToEngine::Refused { .. } => Ok(None),
            ToEngine::Reconfigure(config) => Ok(self.adopt(*config)),
            ToEngine::Agreed => Ok(self.offered.take().and_then(|config| self.adopt(config))),
            ToEngine::Declined(Decline::Offer(why)) => {
                self.offered = None;
                error!(why, "the configuration was not reloaded, the old one stays");
                Ok(None)
            }
            ToEngine::Declined(why) => Err(EngineError::Declined(why)),
            ToEngine::Connected { id } => {
                self.portal.connected(id, fds.into_iter().next());
                Ok(None)
            }
            ToEngine::NotConnected { id, why } => {
                self.portal.not_connected(id, &why);
                Ok(None)
            }
            ToEngine::Accepted { to } => {
                let lan = &self.config.lan;
                self.portal.accepted(to, fds.into_iter().next(), lan);
                Ok(None)
            }
            ToEngine::Health(_) => Err(EngineError::Protocol("health, unasked".to_owned())),
            ToEngine::Done { id } => {
                self.commands.became(id, Ok(()));
                Ok(None)
            }
            ToEngine::NotDone { id, why } => {
                self.commands.became(id, Err(why));
                Ok(None)
            }
            ToEngine::Listen(listener) => {
                self.listen(listener, fds.into_iter().next());
                Ok(None)
            }
            ToEngine::UplinkChanged => Ok(Some(Event::UplinkChanged)),
            ToEngine::Blocked(reason) => Ok(Some(Event::Blocked(reason))),
            ToEngine::Facts(facts) => {
                self.facts = *facts;
                self.heard.at = now;
                Ok(None)
            }
            ToEngine::Evidence(evidence) => {
                self.evidence = evidence;
                Ok(None)
            }
            ToEngine::Stopped(report) => {
                let report = report.join(self.portal.refused(now));
                for answer in self.curious.drain(..) {
                    // Whoever asked may have hung up.
                    let _ = answer.send(report.clone());
                }
                Ok(None)
            }
        }
    }

    fn listen(&mut self, listener: Listener, socket: Option<OwnedFd>) {
        match (listener, socket) {
            (Listener::Uapi, Some(socket)) => self.serve_uapi(Some(socket.into())),
            (Listener::Metrics, Some(socket)) => self.metrics = Some(socket.into()),
            // Its path is fixed for as long as the gateway runs.
            (Listener::Control, Some(_)) => warn!("the warden opened the control socket anew"),
            (_, None) => warn!(?listener, "the warden names a listener and hands over none"),
        }
    }

    /// Asks the warden what was stopped.
    pub(super) async fn ask_stopped(
        &mut self,
        answer: oneshot::Sender<Report>,
    ) -> Result<(), EngineError> {
        // Those who waited too long have hung up, so there are never more than connections.
        self.curious.retain(|waiting| !waiting.is_closed());
        self.curious.push(answer);
        Ok(self.link.send(&ToWarden::Stopped, &[]).await?)
    }

    /// Takes a whole new configuration in. What concerns the session has not changed where there is no event.
    fn adopt(&mut self, config: Config) -> Option<Event> {
        let old = std::mem::replace(&mut self.config, config);
        let new = &self.config;
        self.device.permit(IntoTunnel::of(new));
        let keys = |config: &Config| (config.tunnel.private_key.clone(), config.tunnel.listen_port);
        let same = keys(&old) == keys(new) && old.peers == new.peers;
        if let Uplink::Own(_) = self.uplink {
            self.portal.follow(&self.config.lan);
        }
        (!same).then(|| Event::Reconfigured(self.config.peers.clone()))
    }

    /// Takes our own new configuration, once the warden agrees to what concerns it.
    pub(super) async fn reload(&mut self, mut config: Config) -> Result<Option<Event>, LinkError> {
        let old = &self.config;
        let (new, fixed) = (&mut config, &old.tunnel);
        let was = (fixed.device.clone(), fixed.mtu, fixed.offload);
        if (&new.tunnel.device, new.tunnel.mtu, new.tunnel.offload) != (&was.0, was.1, was.2) {
            warn!("[tunnel] device, mtu and offload take effect when the engine is started again");
        }
        (new.tunnel.device, new.tunnel.mtu, new.tunnel.offload) = was;
        (new.control, new.log) = (old.control.clone(), old.log);
        new.sealed = old.sealed.clone();
        let offer = Offer::of(&config);
        if offer == Offer::of(old) {
            info!("configuration reloaded");
            return Ok(self.adopt(config));
        }
        self.offered = Some(config);
        let offer = ToWarden::Offer(Box::new(offer));
        self.link.send(&offer, &[]).await?;
        Ok(None)
    }

    /// The next LAN client of a published port.
    pub(super) async fn visitor(&self) -> Visitor {
        self.portal.visitor().await
    }

    /// Asks the warden for the connection that a LAN client wants.
    pub(super) async fn admit(&mut self, visitor: Visitor, now: Instant) -> Result<(), LinkError> {
        let Some(wanted) = self.portal.admit(visitor, &self.config.lan, now) else {
            return Ok(());
        };
        let connect = ToWarden::Connect {
            id: wanted.id,
            port: wanted.port,
            client: wanted.client,
        };
        self.link.send(&connect, &[]).await
    }

    /// Ends every connection to and from the LAN that is passed on.
    pub(super) fn cut(&mut self) {
        self.portal.cut();
    }

    /// Notes why the next tunnel is opened.
    pub(super) fn cause(&mut self, cause: Option<&'static str>) {
        self.cause = cause.or(self.cause);
    }

    /// Does what the gateway decided. A failure the gateway can act on comes back as an event.
    pub(super) async fn perform(
        &mut self,
        action: Action,
        gateway: &Gateway,
    ) -> Result<(), EngineError> {
        match action {
            Action::Ask(permit) => self.ask(permit).await?,
            Action::Resolve(endpoint) => self.resolve(endpoint.host),
            Action::Open {
                peer,
                address,
                prove,
            } => self.open(peer, address, prove, gateway),
            Action::Close => {
                self.granted = None;
                self.shown.send_replace(UapiState::default());
                (self.rx, self.tx) = (Rate::default(), Rate::default());
                self.device.disconnect();
            }
        }
        Ok(())
    }

    async fn ask(&mut self, permit: Permit) -> Result<(), EngineError> {
        self.asked += 1;
        self.granted = None;
        if let Some(lookup) = self.lookup.take() {
            lookup.abort();
        }
        let id = self.asked;
        let own = match &mut self.uplink {
            Uplink::Warden => {
                return Ok(self.link.send(&ToWarden::Ask { id, permit }, &[]).await?);
            }
            Uplink::Own(own) => own,
        };
        let event = match own.open(&self.config, &permit) {
            Ok(granted) => {
                self.granted = granted;
                Event::Granted(permit)
            }
            Err(why) => Event::Refused { permit, why },
        };
        // The engine is gone when nobody listens.
        let _ = self.found.send((id, event));
        Ok(())
    }

    fn resolve(&mut self, host: Name) {
        let (granted, found, id) = (self.granted.take(), self.found.clone(), self.asked);
        self.lookup = Some(tokio::spawn(async move {
            // The engine is gone when nobody listens.
            let _ = found.send((id, look_up(host, granted).await));
        }));
    }

    /// Whether a lookup's outcome answers the last question.
    pub(super) fn is_current(&self, id: u64) -> bool {
        id == self.asked
    }

    fn open(&mut self, peer: usize, address: SocketAddrV4, prove: bool, gateway: &Gateway) {
        let Some(peer) = gateway.peers().get(peer) else {
            return;
        };
        let Some((socket, remote)) = self.granted.take() else {
            warn!("the warden granted the endpoint without a socket");
            return;
        };
        if remote != address {
            warn!("the warden's socket leads elsewhere; not used");
            return;
        }
        debug!(%remote, "open");
        if let Some(cause) = self.cause.take().filter(|_| self.opened) {
            *self.reopened.entry(cause.to_owned()).or_default() += 1;
        }
        self.opened = true;
        self.rejected = self.device.snapshot().rejected();
        let port = socket.local_addr().ok().map(|address| address.port());
        let mark = self.facts.mark.map(|Fwmark(mark)| mark);
        self.shown
            .send_replace(open::shown(peer, port, mark, remote));
        let tunnel = &self.config.tunnel;
        let (setup, returns) = (open::setup(tunnel, peer), open::returns(tunnel, prove));
        self.device.connect(setup, socket, remote, returns);
    }

    /// Tells the warden what fits the path.
    pub(super) async fn path_mtu(&self, remote: SocketAddrV4, mtu: u32) -> Result<(), EngineError> {
        debug!(mtu, "path MTU");
        let message = ToWarden::PathMtu { remote, mtu };
        Ok(self.link.send(&message, &[]).await?)
    }

    /// Tells the warden of a handshake, for the engine after this one.
    pub(super) async fn stamp(&self, peer: PublicKey, stamp: Stamp) -> Result<(), EngineError> {
        let message = ToWarden::Stamp { peer, stamp };
        Ok(self.link.send(&message, &[]).await?)
    }

    /// Notes the byte counters, for the rates.
    pub(super) fn sample(&mut self, now: Instant) {
        let snapshot = self.device.snapshot();
        self.rx.note(now, snapshot.rx_bytes);
        self.tx.note(now, snapshot.tx_bytes);
    }

    /// What `vpngw status` says now.
    pub(super) fn status(&self, gateway: &Gateway, now: Instant) -> Status {
        let snapshot = self.device.snapshot();
        status::compose(&Parts {
            config: &self.config,
            facts: &self.facts,
            facts_age: now.saturating_duration_since(self.heard.at),
            topology: match self.uplink {
                Uplink::Warden => Topology::Shared,
                Uplink::Own(_) => Topology::Sealed,
            },
            gateway,
            snapshot: &snapshot,
            rejected: snapshot.rejected().saturating_sub(self.rejected),
            mtu: match self.facts.mtu {
                0 => self.mtu,
                mtu => mtu,
            },
            rx_bits_per_second: self.rx.bits_per_second(),
            tx_bits_per_second: self.tx.bits_per_second(),
            elapsed: now.saturating_duration_since(gateway.since()),
            now: SystemTime::now(),
            no_metrics: self
                .metrics_trouble
                .as_ref()
                .and_then(|it| it.borrow().clone()),
        })
    }

    /// What Prometheus reads now.
    pub(super) fn sampled(&self, gateway: &Gateway, now: Instant) -> Sample {
        let status = self.status(gateway, now);
        status::sample(
            status,
            &self.facts,
            gateway,
            &self.device.snapshot(),
            &self.reopened,
        )
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // They would keep the TUN device of a warden that is gone.
        let lookup = self.lookup.take().map(|lookup| lookup.abort_handle());
        for task in [lookup, self.uapi.take()].into_iter().flatten() {
            task.abort();
        }
    }
}
