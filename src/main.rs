//! Lapwing: finds what a security engineer must know in Kubernetes audit logs and Falco events.
fn main() {}
