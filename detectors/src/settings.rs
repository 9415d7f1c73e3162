//! What an operator tells the detectors about the cluster.

use std::collections::BTreeMap;

use ipnet::IpNet;

use crate::redact::paths::Hidden;

/// Namespaces of the platform itself, unless `lists.platform_namespaces` says otherwise.
pub const PLATFORM_NAMESPACES: &[&str] = &[
    "kube-system",
    "kube-public",
    "kube-node-lease",
    "gke-managed-system",
    "gmp-system",
    "amazon-cloudwatch",
    "calico-system",
    "tigera-operator",
    "kube-flannel",
    "cattle-system",
    "openshift-kube-apiserver",
    "openshift-etcd",
    "openshift-authentication",
];

/// Settings that facts and programs read. Built once, shared by all threads.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The cluster's name, stamped on alerts when known.
    pub cluster: Option<String>,
    /// `lists` of the config, by name: the values of Sigma's `|expand` placeholders.
    pub lists: BTreeMap<String, Vec<String>>,
    /// Proxies in front of the API server (`lists.trusted_proxies`), parsed.
    pub trusted_proxies: Vec<IpNet>,
    /// Platform namespaces (`lists.platform_namespaces` or [`PLATFORM_NAMESPACES`]).
    pub platform_namespaces: Vec<String>,
    /// Paths into events whose values no alert shows (`redact.paths`).
    pub hidden: Vec<Hidden>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            cluster: None,
            lists: BTreeMap::new(),
            trusted_proxies: Vec::new(),
            platform_namespaces: PLATFORM_NAMESPACES.iter().map(ToString::to_string).collect(),
            hidden: Vec::new(),
        }
    }
}

impl Settings {
    /// Settings from the config's `lists`.
    ///
    /// # Errors
    /// A `trusted_proxies` entry that is neither an address nor a CIDR block.
    pub fn new(cluster: Option<String>, lists: BTreeMap<String, Vec<String>>) -> Result<Settings, String> {
        let mut settings = Settings { cluster, ..Settings::default() };
        for proxy in lists.get("trusted_proxies").into_iter().flatten() {
            settings.trusted_proxies.push(parse_network(proxy)?);
        }
        if let Some(namespaces) = lists.get("platform_namespaces") {
            settings.platform_namespaces.clone_from(namespaces);
        }
        settings.lists = lists;
        Ok(settings)
    }
}

/// An address (`10.0.0.1`) or a block (`10.0.0.0/8`) as a network.
///
/// # Errors
/// Text that is neither.
pub fn parse_network(text: &str) -> Result<IpNet, String> {
    text.parse::<IpNet>()
        .or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from))
        .map_err(|_| format!("`{text}` is neither an IP address nor a CIDR block"))
}
