//! `lapwing config ...`: what a configuration file says, checked and shown.

use std::io::{self, Write as _};
use std::path::Path;

use schemars::{Schema, schema_for};
use serde_json::{Map, Value};
use yaml_serde::Mapping;

use crate::cli::{self, ConfigCommand};
use crate::config::Config;
use crate::exit::{Exit, Failure};
use crate::live::Live;
use crate::outputs::{self, Outputs};
use crate::rules::Wanted;

/// Runs one of the commands.
pub(crate) fn run(command: ConfigCommand) -> Result<Exit, Failure> {
    match command {
        ConfigCommand::Check { file } => check(&file),
        ConfigCommand::Show { file } => show(&file),
        ConfigCommand::Schema => {
            writeln!(io::stdout(), "{:#}", schema().to_value())?;
            Ok(Exit::Fine)
        }
    }
}

/// Loads everything that the file names, as `run` would, and connects to nothing.
fn check(file: &Path) -> Result<Exit, Failure> {
    let live = Live::load(file).map_err(Failure::usage)?;
    let rules = cli::Rules { config: Some(file.to_owned()), ..cli::Rules::default() };
    let engine = Wanted::read(&rules)?.engine()?;
    Outputs::build(&live.outputs).map_err(Failure::usage)?;
    live.check().map_err(Failure::usage)?;
    live.check_keys().map_err(Failure::usage)?;
    live.check_detectors(&engine).map_err(Failure::usage)?;
    outputs::warn(&live.outputs, &engine);
    writeln!(
        io::stdout(),
        "{}: {} detectors, {} inputs, {} outputs",
        file.display(),
        engine.detectors().len(),
        live.inputs.len(),
        live.outputs.len()
    )?;
    Ok(Exit::Fine)
}

fn show(file: &Path) -> Result<Exit, Failure> {
    write!(io::stdout(), "{}", effective(file)?)?;
    Ok(Exit::Fine)
}

/// What is in force, as YAML that could be the file.
fn effective(file: &Path) -> Result<String, Failure> {
    let mut whole = Mapping::new();
    let live = Live::load(file).map_err(Failure::usage)?;
    let judging = Config::load(file).map_err(Failure::usage)?;
    for part in [yaml_serde::to_value(&judging), yaml_serde::to_value(&live)] {
        if let yaml_serde::Value::Mapping(part) = part.map_err(Failure::usage)? {
            whole.extend(part);
        }
    }
    yaml_serde::to_string(&whole).map_err(Failure::usage)
}

/// The schema of configuration files: what `replay` reads and what `run` reads.
pub(crate) fn schema() -> Schema {
    let mut schema = schema_for!(Live);
    let judging = schema_for!(Config);
    for part in ["properties", "$defs"] {
        let more = judging.get(part).and_then(Value::as_object).cloned().unwrap_or_default();
        let all = schema.ensure_object().entry(part).or_insert_with(|| Value::Object(Map::new()));
        if let Some(all) = all.as_object_mut() {
            all.extend(more);
        }
    }
    schema.insert("title".to_owned(), "Configuration of Lapwing".into());
    schema.insert(
        "description".to_owned(),
        "What `lapwing run` and `lapwing replay` are told by --config.".into(),
    );
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_schema_is_up_to_date() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/config.schema.json");
        let now = format!("{:#}\n", schema().to_value());
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &now).unwrap();
        }
        let stale = "docs/config.schema.json is stale: run `UPDATE_GOLDEN=1 cargo test --bin lapwing published_schema`";
        assert!(std::fs::read_to_string(&path).is_ok_and(|published| published == now), "{stale}");
    }

    #[test]
    fn what_is_shown_could_be_the_file_and_tells_no_secret() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lapwing.yaml");
        let yaml = "cluster: prod\ninputs:\n  - {type: http, name: hook, tokens: [hunter2, 'file:/t', '${LAPWING_T}']}\n\
                    outputs: [{type: http, preset: slack, url: 'https://hooks.slack.example/hunter3'}, {type: stdout}]\n\
                    detectors: {exceptions: [{detector: 'exec/*', when: {verb: get}, reason: r, until: 2026-04-01}]}\n";
        std::fs::write(&path, yaml).unwrap();
        let whole = |path: &Path| effective(path).unwrap();
        let shown = whole(&path);
        assert!(!shown.contains("hunter"), "{shown}");
        assert!(
            shown.contains("file:/t") && shown.contains("${LAPWING_T}") && shown.contains("max_bytes: 2GiB"),
            "{shown}"
        );
        std::fs::write(&path, &shown).unwrap();
        assert_eq!(whole(&path), shown);
    }

    #[test]
    fn secrets_among_librdkafkas_options_are_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lapwing.yaml");
        let options = "librdkafka_options: {sasl.password: hunter1, ssl.key.pem: hunter2, sasl.oauthbearer.config: hunter3, \
                       sasl.pasword: hunter4, ssl.key.password: '${LAPWING_K}', ssl.keystore.password: 'file:/k', \
                       client.rack: a, fetch.min.bytes: 1000}";
        let yaml = format!(
            "matches: {{bootstrap_servers: a, {options}}}\n\
             inputs: [{{type: kafka, bootstrap_servers: a, topics: [t], {options}}}]\n\
             outputs: [{{type: kafka, bootstrap_servers: a, topic: t, {options}}}]\n"
        );
        std::fs::write(&path, yaml).unwrap();
        let shown = effective(&path).unwrap();
        assert!(!shown.contains("hunter"), "{shown}");
        for told in [
            "sasl.password: '[redacted]'",
            "ssl.key.password: ${LAPWING_K}",
            "ssl.keystore.password: file:/k",
            "client.rack: a",
            "fetch.min.bytes: '1000'",
        ] {
            assert_eq!(shown.matches(told).count(), 3, "{told} in {shown}");
        }
    }

    #[test]
    fn a_password_among_brokers_is_neither_shown_nor_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lapwing.yaml");
        let servers = "bootstrap_servers: 'SASL_SSL://u:hunter2@a:9093'";
        for yaml in [
            format!("matches: {{{servers}}}\n"),
            format!("inputs:\n- {{type: kafka, {servers}, topics: [t]}}\n"),
            format!("outputs:\n- {{type: kafka, {servers}, topic: t}}\n"),
        ] {
            std::fs::write(&path, &yaml).unwrap();
            for refused in [effective(&path).map(drop), check(&path).map(drop)] {
                let error = refused.unwrap_err().to_string();
                assert!(error.contains("bootstrap_servers: `@` has no place there"), "{error}");
                assert!(!error.contains("hunter2"), "{error}");
            }
        }
    }

    #[test]
    fn the_schema_takes_what_is_taken_and_refuses_what_is_refused() {
        let validator = jsonschema::validator_for(&schema().to_value()).unwrap();
        for (yaml, fine) in [
            ("cluster: a\ninputs: [{type: file, paths: [/var/log/a.log]}]\noutputs: [{type: stdout}]", true),
            ("detectors: {min_level: low, overrides: [{detector: 'exec/*', level: high}]}", true),
            ("spool: {max_bytes: 2GiB, on_full: drop_oldest}\nserver: {listen: '0.0.0.0:9468'}", true),
            (
                "inputs: [{type: kafka, bootstrap_servers: a, topics: [t], librdkafka_options: {a: 1, b: true, c: x}}]",
                true,
            ),
            (
                "outputs: [{type: kafka, bootstrap_servers: a, topic: t, librdkafka_options: {fetch.min.bytes: [1]}}]",
                false,
            ),
            ("inputs: [{type: fiel, paths: []}]", false),
            ("clustr: a", false),
            ("detectors: {min_levle: low}", false),
        ] {
            let value: serde_json::Value = yaml_serde::from_str(yaml).unwrap();
            assert_eq!(validator.is_valid(&value), fine, "{yaml}");
            assert_eq!(
                yaml_serde::from_str::<Live>(yaml).is_ok() && yaml_serde::from_str::<Config>(yaml).is_ok(),
                fine,
                "{yaml}"
            );
        }
    }
}
