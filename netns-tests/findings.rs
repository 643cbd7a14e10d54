//! One test for each finding of an audit and each CVE about VPN clients, named by it. Each shows first
//! that the attack works where no gateway runs.

mod container;
mod endpoint;
mod neighbour;
mod routes;
