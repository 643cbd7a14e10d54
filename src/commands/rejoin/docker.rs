//! What is asked of Docker: to list containers, to inspect some, to restart one. Nothing else.

use std::path::Path;

use bollard::errors::Error;
use bollard::models::{
    ContainerInspectResponse, ContainerSummary, ContainerSummaryStateEnum, HealthStatusEnum,
};
use bollard::query_parameters::ListContainersOptions;
use bollard::{API_DEFAULT_VERSION, Docker};

use super::decide::{Dependant, Found, Gateway, Joined, Listed, Start, find, joined};

/// How long an answer may take, in seconds: a restart waits for the program to end.
const PATIENCE: u64 = 300;

/// The Docker daemon.
pub(super) struct Daemon(Docker);

/// The gateway and who may be stranded.
pub(super) struct Look {
    /// The gateway.
    pub gateway: Gateway,
    /// Running containers that joined it, or nobody.
    pub dependants: Vec<Dependant>,
}

/// Why there is nothing to decide.
#[derive(Debug, thiserror::Error)]
pub(super) enum LookError {
    /// Docker does not answer, or refuses.
    #[error("Docker does not say what containers there are")]
    Docker(#[from] Error),
    /// There is no gateway.
    #[error("no container and no service is called {0}: name the gateway's by --gateway")]
    Nothing(String),
    /// There are several.
    #[error("several projects have a service {0}: name the gateway's container by --gateway")]
    Several(String),
    /// A time of another form than Docker's.
    #[error("Docker does not say when {0} was started")]
    Start(String),
}

impl Daemon {
    /// Connects to its socket and agrees on a version of its API.
    pub(super) async fn connect(socket: &Path) -> Result<Self, Error> {
        let path = socket.display().to_string();
        let docker = Docker::connect_with_unix(&path, PATIENCE, API_DEFAULT_VERSION)?;
        Ok(Self(docker.negotiate_version().await?))
    }

    /// What there is now.
    pub(super) async fn look(&self, name: &str) -> Result<Look, LookError> {
        let all = self.list().await?;
        let gateway = match find(name, &all) {
            Found::One(gateway) => gateway,
            Found::Nothing => return Err(LookError::Nothing(name.to_owned())),
            Found::Several => return Err(LookError::Several(name.to_owned())),
        };
        let inspected = self.0.inspect_container(&gateway.id, None).await?;
        let mut look = Look {
            gateway: gateway_of(&inspected).ok_or_else(|| LookError::Start(name.to_owned()))?,
            dependants: Vec::new(),
        };
        for it in all.iter().filter(|it| it.running) {
            if let Some(joined) = joined(it, gateway, &all) {
                look.dependants.extend(self.dependant(it, joined).await?);
            }
        }
        Ok(look)
    }

    /// Starts a container again; returns when it runs.
    pub(super) async fn restart(&self, id: &str) -> Result<(), Error> {
        self.0.restart_container(id, None).await
    }

    async fn list(&self) -> Result<Vec<Listed>, Error> {
        let options = ListContainersOptions {
            all: true,
            ..ListContainersOptions::default()
        };
        let all = self.0.list_containers(Some(options)).await?;
        Ok(all.into_iter().map(listed).collect())
    }

    /// `None` if it went away meanwhile.
    async fn dependant(&self, it: &Listed, joined: Joined) -> Result<Option<Dependant>, LookError> {
        let inspected = match self.0.inspect_container(&it.id, None).await {
            Ok(inspected) => inspected,
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let start = start_of(&inspected).ok_or_else(|| LookError::Start(it.name.clone()))?;
        Ok(Some(Dependant {
            id: it.id.clone(),
            name: it.name.clone(),
            service: it.service.clone(),
            joined,
            start,
        }))
    }
}

fn listed(summary: ContainerSummary) -> Listed {
    let names = summary.names.unwrap_or_default();
    let mut labels = summary.labels.unwrap_or_default();
    // The words that docker-compose and `docker compose` write.
    let one_off = labels
        .get("com.docker.compose.oneoff")
        .is_some_and(|word| word == "True");
    let service = labels.remove("com.docker.compose.service");
    // A container that is linked has names with a second slash, too.
    let name = names
        .iter()
        .filter_map(|name| name.strip_prefix('/'))
        .find(|name| !name.contains('/'));
    Listed {
        id: summary.id.unwrap_or_default(),
        name: name.unwrap_or_default().to_owned(),
        service: service.filter(|_| !one_off),
        running: summary.state == Some(ContainerSummaryStateEnum::RUNNING),
        network: summary
            .host_config
            .and_then(|host| host.network_mode)
            .unwrap_or_default(),
    }
}

fn gateway_of(inspected: &ContainerInspectResponse) -> Option<Gateway> {
    let state = inspected.state.as_ref()?;
    let health = state.health.as_ref().and_then(|health| health.status);
    let healthy = match health {
        None | Some(HealthStatusEnum::EMPTY | HealthStatusEnum::NONE) => true,
        Some(HealthStatusEnum::HEALTHY) => true,
        Some(HealthStatusEnum::STARTING | HealthStatusEnum::UNHEALTHY) => false,
    };
    Some(Gateway {
        start: start_of(inspected)?,
        ready: healthy && state.running == Some(true) && state.restarting != Some(true),
    })
}

fn start_of(inspected: &ContainerInspectResponse) -> Option<Start> {
    Start::parse(inspected.state.as_ref()?.started_at.as_deref()?)
}

fn is_missing(error: &Error) -> bool {
    matches!(
        error,
        Error::DockerResponseServerError {
            status_code: 404,
            ..
        }
    )
}
