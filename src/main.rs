//! Lapwing: finds what a security engineer must know in Kubernetes audit logs and Falco events.

#[allow(dead_code)] // until the command line calls it
mod replay;
#[allow(dead_code)] // until the command line calls it
mod source;

fn main() {}
