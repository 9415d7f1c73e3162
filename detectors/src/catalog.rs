//! The detectors that are compiled in: `catalog/<family>/<name>.yml`.

/// One file of the catalogue.
#[derive(Debug, Clone, Copy)]
pub struct Source {
    /// `family/name`: the path below `catalog/` without its extension.
    pub name: &'static str,
    /// The file.
    pub text: &'static str,
    /// Its documents without tests and prose, which judging does not need: a list of mappings in JSON.
    pub json: &'static str,
}

/// All files of the catalogue, by name.
pub static SOURCES: &[Source] = include!(concat!(env!("OUT_DIR"), "/catalog.rs"));
