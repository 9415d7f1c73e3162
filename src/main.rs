//! Lapwing: finds what a security engineer must know in Kubernetes audit logs and Falco events.
#![allow(dead_code)] // until the commands use it

mod cli;
mod config;
mod sink;
mod source;
mod text;
mod view;

fn main() {}
