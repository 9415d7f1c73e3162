//! `exec.*`, `kubelet.*`, `proxy.*`: commands run in pods, and requests that the API server passes on.
//!
//! Such requests have no body: everything stands in the URI, so every audit level shows it. The same commands can be sent
//! to a kubelet through `nodes/proxy`, where nothing but the path tells them from a metrics scrape.

use std::borrow::Cow;

use super::FactType::{Bool, List, Text};
use super::object::Words;
use super::query::{Query, clean, path};
use super::shape::{Shape, missing, sees_rest};
use super::{Fact, Parts};
use crate::event::{Event, Top};
use crate::value::Value;

const SHAPE: Parts = Parts::SHAPE;

/// The family's table.
pub(super) static FACTS: &[Fact] = &[
    Fact::audit("exec.argv", List, SHAPE, argv).doc("The command, word by word, decoded once."),
    Fact::audit("exec.command", Text, SHAPE, command_line)
        .doc("The command's words joined by single spaces."),
    Fact::audit("exec.argv0", Text, SHAPE, argv0)
        .doc("The program: the last path segment of the command's first word."),
    Fact::audit("exec.words", List, SHAPE, words).doc(
        "The last path segment of every word of the command, each once, also inside the strings given to `sh -c`: \
        split at blanks, quotes and shell punctuation.",
    ),
    Fact::audit("exec.is-shell", Bool, SHAPE, is_shell).doc(
        "True if the program is a shell, also behind env, busybox, setsid, nsenter, chroot, sudo and the \
        like.",
    ),
    Fact::audit("exec.stdin", Bool, SHAPE, stdin).doc("True if the client sends input."),
    Fact::audit("exec.tty", Bool, SHAPE, tty).doc("True if the client asks for a terminal."),
    Fact::audit("exec.interactive", Bool, SHAPE, interactive).doc("True if exec.stdin or exec.tty is."),
    Fact::audit("exec.container", Text, SHAPE, container).doc("The container, if the request names one."),
    Fact::audit("kubelet.action", Text, SHAPE, kubelet_action)
        .doc("exec, run, attach, portForward or cri, of a request to a kubelet through nodes/proxy."),
    Fact::audit("kubelet.namespace", Text, SHAPE, kubelet_namespace)
        .doc("Namespace of the pod that the kubelet is asked about."),
    Fact::audit("kubelet.pod", Text, SHAPE, kubelet_pod)
        .doc("Name of the pod that the kubelet is asked about."),
    Fact::audit("kubelet.container", Text, SHAPE, kubelet_container)
        .doc("The container that the kubelet is asked about."),
    Fact::audit("proxy.path", Text, SHAPE, proxy_path).doc(
        "What follows `/proxy/` in a request to a pod, service or node, decoded and cleaned, without \
        leading slash.",
    ),
];

/// A command run in a container, or an attachment to its main process.
#[derive(Debug, Default)]
pub(super) struct Command {
    argv: Vec<String>,
    /// True if there may be more words: too many parameters, or a form in a body that audit does not show.
    partial: bool,
    stdin: bool,
    tty: bool,
    container: Option<String>,
}

/// The pod's end of a request to a kubelet.
#[derive(Debug)]
struct Kubelet {
    action: &'static str,
    namespace: Option<String>,
    pod: Option<String>,
    container: Option<String>,
}

impl Kubelet {
    /// Reads `exec/<namespace>/<pod>[/<uid>]/<container>` and its like.
    /// Source: kubernetes `pkg/kubelet/server/server.go`.
    fn parse(path: &str) -> Option<Kubelet> {
        const ACTIONS: [&str; 5] = ["exec", "run", "attach", "portForward", "cri"];
        let mut segments = path.split('/');
        let first = segments.next()?;
        let action = ACTIONS.into_iter().find(|action| *action == first)?;
        let rest: Vec<_> = segments.map(str::to_owned).collect();
        let pod = |place: usize| rest.get(place).filter(|_| action != "cri").cloned();
        let container = match (action, rest.len()) {
            ("exec" | "run" | "attach", 3 | 4) => rest.last().cloned(),
            _ => None,
        };
        Some(Kubelet { action, namespace: pod(0), pod: pod(1), container })
    }
}

impl Command {
    fn of(event: &Event<'_>) -> Option<Command> {
        let query = Query::of(event);
        let shape = Shape::of(event);
        let all = |key| query.all(key).map(str::to_owned).collect::<Vec<_>>();
        if shape.entry().is_some() {
            let (stdin, tty) = (query.flag("stdin"), query.flag("tty"));
            let container = query.first("container").map(str::to_owned);
            return Some(Command { argv: all("command"), partial: query.partial, stdin, tty, container });
        }
        let kubelet = Kubelet::parse(&proxied_path(event)?)?;
        if !matches!(kubelet.action, "exec" | "run" | "attach") {
            return None;
        }
        let mut argv = all("command");
        if argv.is_empty() {
            let run = query.first("cmd").unwrap_or_default();
            argv = run.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect();
        }
        // A kubelet takes the same parameters from a posted form.
        let posted = argv.is_empty() && shape.verb == "create" && kubelet.action != "attach";
        Some(Command {
            argv,
            partial: query.partial || posted,
            stdin: query.flag("input") || query.flag("stdin"),
            tty: query.flag("tty"),
            container: kubelet.container,
        })
    }

    /// The command, or what its facts are without one.
    fn find<'e, 'a>(event: &'e Event<'a>) -> Result<&'e Command, Value<'a>> {
        let shape = Shape::of(event);
        let enters = matches!(shape.entry(), Some("exec" | "attach"));
        if !enters && shape.proxied() != Some("nodes") {
            return Err(Value::Absent);
        }
        if !sees_rest(event) {
            return Err(Value::Unknown);
        }
        if !event.has(Top::RequestUri) {
            return Err(missing(event));
        }
        event.views().command.get_or_init(|| Command::of(event)).as_ref().ok_or(Value::Absent)
    }

    /// What it means that something was not found in the command.
    fn nothing<'a>(&self) -> Value<'a> {
        if self.partial { Value::Unknown } else { Value::Absent }
    }
}

/// What follows `/proxy/` in the decoded path. The API server joins it to the target's URL, which cleans it.
fn proxied_path(event: &Event<'_>) -> Option<String> {
    let shape = Shape::of(event);
    let resource = shape.proxied()?;
    let path = path(event)?;
    let segments: Vec<_> = path.split('/').collect();
    // An outer proxy may have put a prefix before the API's own path.
    let root = segments.windows(2).position(|pair| pair == ["api", "v1"])?;
    let mut rest = &segments[root + 2..];
    let legacy = rest.first() == Some(&"proxy");
    if legacy {
        rest = &rest[1..];
    }
    if let ["namespaces", _, after @ ..] = rest {
        rest = after;
    }
    let below = match rest {
        [kind, _, "proxy", below @ ..] if *kind == resource && !legacy => below,
        [kind, _, below @ ..] if *kind == resource && legacy => below,
        _ => return None,
    };
    let cleaned = clean(&format!("/{}", below.join("/")));
    Some(cleaned.trim_start_matches('/').to_owned())
}

fn owned<'a>(text: &str) -> Value<'a> {
    Value::Text(Cow::Owned(text.to_owned()))
}

fn basename(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn argv<'a>(event: &Event<'a>) -> Value<'a> {
    Command::find(event).map_or_else(
        |without| without,
        |command| Value::list_of(command.argv.iter().map(|word| owned(word)).collect(), command.partial),
    )
}

fn command_line<'a>(event: &Event<'a>) -> Value<'a> {
    Command::find(event).map_or_else(
        |without| without,
        |command| match (command.argv.is_empty(), command.partial) {
            (false, false) => owned(&command.argv.join(" ")),
            _ => command.nothing(),
        },
    )
}

fn argv0<'a>(event: &Event<'a>) -> Value<'a> {
    Command::find(event).map_or_else(
        |without| without,
        |command| command.argv.first().map_or_else(|| command.nothing(), |word| owned(basename(word))),
    )
}

fn words<'a>(event: &Event<'a>) -> Value<'a> {
    let punctuation = |c: char| c.is_whitespace() || ";|&()`$'\"=<>{},".contains(c);
    Command::find(event).map_or_else(
        |without| without,
        |command| {
            let split = command.argv.iter().flat_map(|word| word.split(punctuation));
            let (mut words, mut cut) = (Words::default(), false);
            for word in split.map(basename).filter(|word| !word.is_empty()) {
                cut |= !words.add(Cow::Borrowed(word));
            }
            if cut {
                event.views().hit_bound();
            }
            Value::list_of(words.items.iter().map(|word| owned(word)).collect(), command.partial || cut)
        },
    )
}

fn is_shell<'a>(event: &Event<'a>) -> Value<'a> {
    Command::find(event).map_or_else(
        |without| without,
        |command| match (runs_shell(&command.argv), command.partial) {
            (false, true) => Value::Unknown,
            (shell, _) => Value::Bool(shell),
        },
    )
}

const SHELLS: &[&str] = &[
    "sh",
    "ash",
    "bash",
    "cmd",
    "cmd.exe",
    "csh",
    "dash",
    "fish",
    "ksh",
    "mksh",
    "powershell",
    "powershell.exe",
    "pwsh",
    "rbash",
    "su",
    "tcsh",
    "zsh",
];

/// A program that runs another.
struct Wrapper {
    name: &'static str,
    /// Options whose value is the next word.
    valued: &'static [&'static str],
    /// Words of its own before the program.
    operands: usize,
    /// Whether it runs a shell when it is given no program.
    shell: bool,
}

const fn wrapper(
    name: &'static str,
    valued: &'static [&'static str],
    operands: usize,
    shell: bool,
) -> Wrapper {
    Wrapper { name, valued, operands, shell }
}

const WRAPPERS: &[Wrapper] = &[
    wrapper("busybox", &[], 0, false),
    wrapper("chroot", &[], 1, true),
    wrapper("doas", &["-u", "-C"], 0, true),
    wrapper("dumb-init", &[], 0, false),
    wrapper("env", &["-u", "--unset", "-C", "--chdir"], 0, false),
    wrapper("exec", &["-a"], 0, false),
    wrapper("gosu", &[], 1, false),
    wrapper("ionice", &["-c", "-n"], 0, false),
    wrapper("nice", &["-n"], 0, false),
    wrapper("nohup", &[], 0, false),
    wrapper("nsenter", &["-t", "--target", "-S", "--setuid", "-G", "--setgid"], 0, true),
    wrapper("runuser", &["-u", "-g", "-G"], 0, true),
    wrapper("setsid", &[], 0, false),
    wrapper("stdbuf", &["-i", "-o", "-e"], 0, false),
    wrapper("su-exec", &[], 1, false),
    wrapper("sudo", &["-u", "-g", "-h", "-p", "-C", "-r", "-t", "-T", "-U", "-D", "-R"], 0, true),
    wrapper("timeout", &["-s", "--signal", "-k", "--kill-after"], 1, false),
    wrapper("tini", &[], 0, false),
    wrapper("toybox", &[], 0, false),
    wrapper("unshare", &["-S", "-G", "-R", "-w"], 0, true),
];

impl Wrapper {
    /// The command behind the wrapper's own words.
    fn behind<'w>(&self, mut words: &'w [String]) -> &'w [String] {
        let mut operands = self.operands;
        let mut options = true;
        while let [word, rest @ ..] = words {
            if options && word == "--" {
                options = false;
            } else if options && self.valued.contains(&word.as_str()) {
                words = rest.get(1..).unwrap_or_default();
                continue;
            } else if options && word.starts_with('-') || word.contains('=') {
                // An option, or an assignment.
            } else if operands > 0 {
                operands -= 1;
            } else {
                break;
            }
            words = rest;
        }
        words
    }
}

/// True if the command's program is a shell, looked for behind any number of wrappers.
fn runs_shell(argv: &[String]) -> bool {
    let mut words = argv;
    while let Some((first, rest)) = words.split_first() {
        // `env -S` takes a whole command line as one word; a login shell's name begins with a hyphen.
        let program = basename(first.split_whitespace().next().unwrap_or_default());
        if SHELLS.contains(&program.trim_start_matches('-')) {
            return true;
        }
        let Some(wrapper) = WRAPPERS.iter().find(|wrapper| wrapper.name == program) else { return false };
        words = wrapper.behind(rest);
        if words.is_empty() {
            return wrapper.shell;
        }
    }
    false
}

fn flag<'a>(event: &Event<'a>, flag: impl Fn(&Command) -> bool) -> Value<'a> {
    Command::find(event).map_or_else(
        |without| without,
        |command| match (flag(command), command.partial) {
            (false, true) => Value::Unknown,
            (set, _) => Value::Bool(set),
        },
    )
}

fn stdin<'a>(event: &Event<'a>) -> Value<'a> {
    flag(event, |command| command.stdin)
}

fn tty<'a>(event: &Event<'a>) -> Value<'a> {
    flag(event, |command| command.tty)
}

fn interactive<'a>(event: &Event<'a>) -> Value<'a> {
    flag(event, |command| command.stdin || command.tty)
}

fn container<'a>(event: &Event<'a>) -> Value<'a> {
    Command::find(event).map_or_else(
        |without| without,
        |command| match command.container.as_deref() {
            Some(container) if !container.is_empty() => owned(container),
            _ => command.nothing(),
        },
    )
}

/// Something about a request to a kubelet.
fn of_kubelet<'a>(event: &Event<'a>, part: impl Fn(Kubelet) -> Option<String>) -> Value<'a> {
    if Shape::of(event).proxied() != Some("nodes") {
        return Value::Absent;
    }
    if !sees_rest(event) {
        return Value::Unknown;
    }
    let kubelet = proxied_path(event).and_then(|path| Kubelet::parse(&path));
    match kubelet.and_then(part) {
        Some(text) => Value::Text(Cow::Owned(text)),
        None if event.has(Top::RequestUri) => Value::Absent,
        None => missing(event),
    }
}

fn kubelet_action<'a>(event: &Event<'a>) -> Value<'a> {
    of_kubelet(event, |kubelet| Some(kubelet.action.to_owned()))
}

fn kubelet_namespace<'a>(event: &Event<'a>) -> Value<'a> {
    of_kubelet(event, |kubelet| kubelet.namespace)
}

fn kubelet_pod<'a>(event: &Event<'a>) -> Value<'a> {
    of_kubelet(event, |kubelet| kubelet.pod)
}

fn kubelet_container<'a>(event: &Event<'a>) -> Value<'a> {
    of_kubelet(event, |kubelet| kubelet.container)
}

fn proxy_path<'a>(event: &Event<'a>) -> Value<'a> {
    if Shape::of(event).proxied().is_none() {
        return Value::Absent;
    }
    if !sees_rest(event) {
        return Value::Unknown;
    }
    match proxied_path(event) {
        Some(path) if !path.is_empty() => Value::Text(Cow::Owned(path)),
        Some(_) => Value::Absent,
        None if event.has(Top::RequestUri) => Value::Absent,
        None => missing(event),
    }
}

#[cfg(test)]
mod tests {
    use crate::facts::tests::check;

    /// A request that enters a pod, with this query.
    #[track_caller]
    fn check_exec(query: &str, fact: &str, expected: &str) {
        check(&entry("exec", query), fact, expected);
    }

    fn entry(kind: &str, query: &str) -> String {
        format!(
            r#"{{"verb": "get", "requestURI": "/api/v1/namespaces/shop/pods/web/{kind}?{query}",
                "objectRef": {{"resource": "pods", "subresource": "{kind}", "namespace": "shop", "name": "web"}},
                "responseStatus": {{"code": 101}}}}"#
        )
    }

    #[test]
    fn the_command_is_every_parameter_in_order() {
        let query =
            r"tty=true\u0026command=sh&stdin=true&command=-c&command=cat+%2Fetc%2Fshadow&container=app";
        check_exec(query, "exec.argv", "[sh, -c, cat /etc/shadow]");
        check_exec(query, "exec.command", "sh -c cat /etc/shadow");
        check_exec(query, "exec.argv0", "sh");
        check_exec(query, "exec.words", "[sh, -c, cat, shadow]");
        check_exec(query, "exec.is-shell", "true");
        check_exec(query, "exec.interactive", "true");
        check_exec(query, "exec.container", "app");
    }

    #[test]
    fn decoding_happens_once() {
        check_exec("command=%2525", "exec.command", "%25");
        check_exec("command=a%2Bb", "exec.command", "a+b");
        check_exec("comm%61nd=id", "exec.command", "id");
        check_exec("command=ls%3Bid", "exec.words", "[ls, id]");
    }

    #[test]
    fn flags_are_read_as_the_server_reads_them() {
        check_exec("command=id&stdin=1", "exec.stdin", "true");
        check_exec("command=id&tty", "exec.tty", "true");
        check_exec("command=id&tty=False&stdin=0", "exec.interactive", "false");
        check_exec("command=id", "exec.container", "-");
    }

    #[test]
    fn hundreds_of_parameters() {
        let query = vec!["command=x"; 900].join("&") + "&command=last";
        check_exec(&query, "exec.argv0", "x");
        let all = vec!["x"; 900].join(" ") + " last";
        check_exec(&query, "exec.command", &all);
        let endless = vec!["command=x"; (1 << 17) + 1].join("&");
        check_exec(&endless, "exec.command", "?");
        check_exec(&endless, "exec.is-shell", "?");
        let echoes: Vec<_> = (0..5000).map(|n| format!("command=echo&command={n}&")).collect();
        let echoes = echoes.concat();
        check_exec(&format!("command=true&{echoes}command=nc"), "exec.words", &{
            let numbers: Vec<_> = (0..5000).map(|n| n.to_string()).collect();
            format!("[true, echo, {}, nc]", numbers.join(", "))
        });
        check_exec(&format!("{}command=sh", "command=env&".repeat(5000)), "exec.is-shell", "true");
    }

    #[track_caller]
    fn check_shell(command: &str, expected: &str) {
        let query: Vec<_> = command.split(' ').map(|word| format!("command={word}")).collect();
        check_exec(&query.join("&"), "exec.is-shell", expected);
    }

    #[test]
    fn shells_are_found_behind_other_programs() {
        for command in [
            "sh",
            "/bin/bash -c id",
            "-bash",
            "env A=1 -u B bash",
            "busybox sh",
            "setsid -f sh",
            "nsenter -t 1 -m -u -- bash",
            "nsenter -t 1 -m",
            "chroot /host",
            "chroot /host /bin/sh",
            "sudo -u root zsh",
            "sudo -i",
            "su",
            "timeout 5 nice -n 5 sh",
            "env env env sh",
        ] {
            check_shell(command, "true");
        }
        for command in [
            "ls /bin/sh",
            "env ls sh",
            "busybox",
            "chroot /host ls",
            "python -c sh",
            "shasum x",
            "timeout 5 ls",
        ] {
            check_shell(command, "false");
        }
    }

    #[test]
    fn attach_has_no_command_and_port_forward_is_none() {
        check(&entry("attach", "stdin=true"), "exec.stdin", "true");
        check(&entry("attach", "stdin=true"), "exec.command", "-");
        check(&entry("attach", "stdin=true"), "exec.is-shell", "false");
        check(&entry("portforward", "ports=80"), "exec.stdin", "-");
        check("{}", "exec.command", "-");
    }

    fn proxied(verb: &str, uri: &str, kind: &str, subresource: &str) -> String {
        format!(
            r#"{{"verb": "{verb}", "requestURI": "{uri}",
                "objectRef": {{"resource": "{kind}", "name": "n", "subresource": "{subresource}"}}}}"#
        )
    }

    #[track_caller]
    fn check_node(rest: &str, fact: &str, expected: &str) {
        check(
            &proxied("get", &format!("/api/v1/nodes/n:10250/proxy/{rest}"), "nodes", "proxy"),
            fact,
            expected,
        );
    }

    #[test]
    fn kubelets_run_commands_too() {
        let exec = "exec/shop/web/app?command=id&command=-u&input=1&tty=1";
        check_node(exec, "kubelet.action", "exec");
        check_node(exec, "kubelet.namespace", "shop");
        check_node(exec, "kubelet.pod", "web");
        check_node(exec, "kubelet.container", "app");
        check_node(exec, "exec.command", "id -u");
        check_node(exec, "exec.interactive", "true");
        check_node("run/shop/web/9f2c/app?cmd=cat%20/etc/shadow", "exec.argv", "[cat, /etc/shadow]");
        check_node("run/shop/web/9f2c/app?cmd=id", "kubelet.container", "app");
        check_node("portForward/shop/web", "kubelet.action", "portForward");
        check_node("portForward/shop/web", "exec.command", "-");
        check_node("cri/exec/Zx81", "kubelet.action", "cri");
        check_node("cri/exec/Zx81", "kubelet.pod", "-");
    }

    #[test]
    fn paths_to_a_kubelet_cannot_be_disguised() {
        check_node("%65xec/shop/web/app?command=id", "kubelet.action", "exec");
        check_node("metrics/../exec/shop/web/app?command=id", "kubelet.action", "exec");
        check_node("/exec/shop/web/app?command=id", "exec.command", "id");
        let legacy = proxied("proxy", "/api/v1/proxy/nodes/n/run/shop/web/app?cmd=id", "nodes", "");
        check(&legacy, "exec.command", "id");
        let prefixed =
            proxied("get", "/k8s/clusters/c1/api/v1/nodes/n/proxy/exec/a/b/c?command=id", "nodes", "proxy");
        check(&prefixed, "exec.command", "id");
    }

    #[test]
    fn scraping_a_kubelet_is_no_command() {
        check_node("metrics/cadvisor", "kubelet.action", "-");
        check_node("metrics/cadvisor", "exec.command", "-");
        check_node("metrics/cadvisor", "proxy.path", "metrics/cadvisor");
        check_node("executions", "kubelet.action", "-");
    }

    #[test]
    fn a_posted_form_hides_the_command() {
        let event = proxied("create", "/api/v1/nodes/n/proxy/run/shop/web/app", "nodes", "proxy");
        check(&event, "exec.command", "?");
        check(&event, "exec.is-shell", "?");
        check(&event, "kubelet.pod", "web");
    }

    #[test]
    fn proxied_paths() {
        let service = "/api/v1/namespaces/shop/services/http:web:80/proxy/admin/?x=1";
        check(&proxied("get", service, "services", "proxy"), "proxy.path", "admin");
        check(&proxied("get", "/api/v1/namespaces/shop/pods/web/proxy", "pods", "proxy"), "proxy.path", "-");
        check(
            &proxied("get", "/api/v1/namespaces/proxy/pods/proxy/proxy/proxy", "pods", "proxy"),
            "proxy.path",
            "proxy",
        );
    }
}
