//! Credentials by what stands before them: `password=`, `--token`, `-u user:`, `Authorization:`, and how everyday programs
//! take them.
//!
//! The text is read once, word by word, as a shell would split it as far as can be told: the quotes of a command whose
//! words were joined are gone. Every step moves forward, so that the time is linear whatever the text is.

use std::ops::Range;

use memchr::memmem;

use super::Cuts;
use super::names::{self, Promise};
use super::programs::{self, Program, Trait};

/// Options of everyday programs that begin as `-pVALUE` does.
const NO_PASSWORDS: [&str; 38] = [
    "-package",
    "-page",
    "-parallel",
    "-path",
    "-pattern",
    "-peer",
    "-pem",
    "-period",
    "-perm",
    "-pid",
    "-pidfile",
    "-pipe",
    "-plugin",
    "-pod",
    "-policy",
    "-pool",
    "-port",
    "-ports",
    "-prefix",
    "-pretty",
    "-print",
    "-print0",
    "-printf",
    "-priority",
    "-process",
    "-profile",
    "-project",
    "-properties",
    "-property",
    "-proto",
    "-protocol",
    "-provider",
    "-proxy",
    "-prune",
    "-pubin",
    "-public",
    "-pubout",
    "-push",
];

/// Options that name a user, with a password behind a colon.
const ACCOUNTS: [&str; 9] = [
    "--auth",
    "-u",
    "--user",
    "--proxy-user",
    "--creds",
    "--src-creds",
    "--dest-creds",
    "--username",
    "--userpwd",
];

/// Schemes of the header `Authorization`.
const SCHEMES: [&str; 7] = ["basic", "bearer", "digest", "token", "negotiate", "apikey", "aws4-hmac-sha256"];

/// What the next word is, by the words before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Anything,
    /// A credential, unless it is an option.
    Value,
    /// A credential, unless it is an option or a pair.
    Alone,
    /// A credential if it looks like one.
    Random,
    /// A credential if it is in quotes.
    Quoted,
    /// The scheme of an `Authorization`, or the credential itself.
    Scheme,
    /// A credential of the scheme `Basic`, if it is one.
    Basic,
    /// A pair of a cookie; others follow.
    Cookie,
    /// As `Cookie`, or the name of a file that holds them.
    Cookies,
    /// `key=VALUE`.
    Pair,
    /// `user:VALUE`.
    Account,
    /// `=` or `:`, then a credential.
    Sign,
    /// `BY`, then a credential.
    By,
    /// The value of an option, which is no operand.
    Skip,
    /// A patch of a Secret.
    Body,
}

/// Finds them all. With `apart`, names and values may have lost what joined them.
pub(super) fn find(text: &str, apart: bool, cuts: &mut Cuts) {
    let scan = Scan {
        text,
        bytes: text.as_bytes(),
        cuts,
        apart,
        at: 0,
        next: Next::Anything,
        program: &programs::UNKNOWN,
        operands: 0,
        state: State::default(),
        query: false,
        header: false,
        unclosed: [false; 2],
        feeds: None,
    };
    scan.run();
}

/// Which words of the current command were seen.
#[allow(clippy::struct_excessive_bools)] // they are independent of each other
#[derive(Debug, Default, Clone, Copy)]
struct State {
    login: bool,
    writes: bool,
    patch: bool,
    secret: bool,
    batch: bool,
    prints: bool,
}

struct Scan<'t, 'c> {
    text: &'t str,
    bytes: &'t [u8],
    cuts: &'c mut Cuts,
    apart: bool,
    /// Where the next word is looked for.
    at: usize,
    next: Next,
    program: &'static Program,
    /// Words of the current command that are no options.
    operands: usize,
    state: State,
    /// True within the query of a URL, where `&` ends no command.
    query: bool,
    /// True if the word before says that this one is a header.
    header: bool,
    /// True for single and double quotes that nothing closes.
    unclosed: [bool; 2],
    /// Whether what is printed is read by a program that asks for a password; looked up once.
    feeds: Option<bool>,
}

fn is_quote(byte: u8) -> bool {
    matches!(byte, b'"' | b'\'')
}

fn is_separator(byte: u8) -> bool {
    matches!(byte, b';' | b'|' | b'&')
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')
}

impl Scan<'_, '_> {
    fn run(mut self) {
        while let Some((between, word)) = self.word() {
            self.at = word.end;
            self.enter(between, &word);
            self.read(word);
        }
    }

    /// True if white space, or a space as URLs write it, begins here.
    fn blank(&self, at: usize) -> usize {
        match self.bytes.get(at) {
            Some(byte) if byte.is_ascii_whitespace() => 1,
            Some(b'%') if self.bytes[at..].starts_with(b"%20") => 3,
            _ => 0,
        }
    }

    /// The next word, and what stands between it and the one before.
    fn word(&self) -> Option<(Range<usize>, Range<usize>)> {
        let mut start = self.at;
        loop {
            match self.blank(start) {
                0 if self.bytes.get(start).is_some_and(|byte| is_separator(*byte)) => start += 1,
                0 => break,
                blank => start += blank,
            }
        }
        let mut end = start;
        while end < self.bytes.len() && self.blank(end) == 0 && !is_separator(self.bytes[end]) {
            end += 1;
        }
        (end > start).then_some((self.at..start, start..end))
    }

    /// Notes whether a new command begins.
    fn enter(&mut self, between: Range<usize>, word: &Range<usize>) {
        let between = &self.bytes[between];
        let goes_on = between == b"&" && self.query;
        let ends = between.iter().any(|byte| is_separator(*byte) || *byte == b'\n');
        if ends && !goes_on {
            let cookie = self.next == Next::Cookie && between.starts_with(b";");
            self.next = if cookie { Next::Cookie } else { Next::Anything };
            self.program = &programs::UNKNOWN;
            self.begin();
        }
        self.query = goes_on || self.bytes[word.clone()].contains(&b'?');
    }

    fn begin(&mut self) {
        self.operands = 0;
        self.state = State::default();
    }

    fn read(&mut self, word: Range<usize>) {
        let bare = self.bare(&word);
        if bare.is_empty() {
            // A sign between a name and its value may stand alone; so may a quote.
            return;
        }
        let next = std::mem::replace(&mut self.next, Next::Anything);
        if self.follows(next, &word, &bare) {
            return;
        }
        let plain = &self.text[bare.clone()];
        // `kubectl patch` is no `patch`; what `docker exec` runs is a program.
        // `--scheme http` is no `http`.
        let other = program_of(plain).filter(|program| match program.trait_ {
            Trait::Quiet => !self.program.login,
            Trait::Httpie => matches!(self.program.trait_, Trait::Unknown | Trait::Quiet),
            _ => true,
        });
        if let Some(program) = other {
            self.program = program;
            self.begin();
        } else if plain.starts_with('-') {
            if self.option(&word, &bare) {
                return;
            }
        } else if self.operand(&word, &bare) {
            return;
        }
        self.pairs(&word);
        self.header &= plain.starts_with('-');
    }

    /// The word without quotes and brackets around it.
    fn bare(&self, word: &Range<usize>) -> Range<usize> {
        let around = |byte: &u8| is_quote(*byte) || matches!(byte, b'(' | b')' | b'{' | b'}' | b'`' | b',');
        let bytes = &self.bytes[word.clone()];
        let Some(first) = bytes.iter().position(|byte| !around(byte)) else { return word.start..word.start };
        let last = bytes.iter().rposition(|byte| !around(byte)).unwrap_or(first);
        word.start + first..word.start + last + 1
    }

    /// Takes a word that an earlier one announced; true if nothing else is to be made of it.
    fn follows(&mut self, next: Next, word: &Range<usize>, bare: &Range<usize>) -> bool {
        let plain = &self.text[bare.clone()];
        let option = plain.starts_with('-') && plain.len() > 1;
        match next {
            Next::Value | Next::Alone if option => return false,
            Next::Alone if plain.contains('=') => return false,
            Next::Random if !names::is_random(plain) => return false,
            Next::Sign | Next::Quoted if matches!(plain, "=" | ":" | "=>" | ":=") => self.next = Next::Value,
            Next::Quoted if !is_quote(self.bytes[word.start]) => return false,
            Next::Value if self.program.trait_ == Trait::Openssl && plain.starts_with("pass:") => {
                self.value(bare.start + 5, word.end, true);
            }
            Next::Value if self.program.trait_ == Trait::Openssl && is_reference(plain) => {}
            Next::Value | Next::Alone | Next::Random | Next::Quoted => self.value(word.start, word.end, true),
            Next::Scheme if SCHEMES.iter().any(|scheme| plain.eq_ignore_ascii_case(scheme)) => {
                self.next = Next::Value;
            }
            Next::Basic if !is_basic(plain) => return false,
            Next::Scheme | Next::Basic => self.value(bare.start, word.end, true),
            Next::Cookies if !plain.contains('=') => return false,
            Next::Cookie | Next::Cookies => {
                self.value(bare.start, word.end, false);
                if self.bytes.get(word.end) == Some(&b';') {
                    self.next = Next::Cookie;
                }
            }
            Next::Pair => match plain.find('=') {
                Some(sign) => self.value(bare.start + sign + 1, word.end, true),
                None => return false,
            },
            Next::Account => return self.account(bare, word),
            Next::Sign if self.apart && !option => self.value(bare.start, word.end, true),
            Next::By if plain.eq_ignore_ascii_case("by") => self.next = Next::Value,
            Next::Skip => {}
            Next::Body => self.body(word),
            Next::Anything | Next::Sign | Next::By => return false,
        }
        true
    }

    /// Cuts a value that begins at `start`: to its closing quote if it has one, else to the end of the word; with `long`,
    /// separators that no blank follows belong to the word.
    fn value(&mut self, start: usize, end: usize, long: bool) {
        // `$'...'` and `$"..."` are quotes of shells too.
        let dollar = matches!(self.bytes.get(start..start + 2), Some([b'$', quote]) if is_quote(*quote));
        let start = start + usize::from(dollar);
        let escaped = self.bytes.get(start) == Some(&b'\\');
        let quote = start + usize::from(escaped);
        if let Some(byte) = self.bytes.get(quote).copied().filter(|byte| quote < end && is_quote(*byte)) {
            if let Some(close) = self.close(quote + 1, byte, escaped) {
                self.cut(quote + 1..close - usize::from(escaped && self.bytes[close - 1] == b'\\'));
                self.at = self.at.max(close + 1);
                return;
            }
            self.cut(quote + 1..end.max(quote + 1));
            return;
        }
        let mut stop = end;
        if long {
            while stop < self.bytes.len() && self.blank(stop) == 0 {
                stop += 1;
            }
            while stop > end && is_separator(self.bytes[stop - 1]) {
                stop -= 1;
            }
            let trailing = |byte: &&u8| is_quote(**byte) || matches!(byte, b')' | b'`');
            stop -= self.bytes[start.min(stop)..stop].iter().rev().take_while(trailing).count();
            self.at = self.at.max(stop);
        } else if let Some(quote) = self.bytes[start..end].iter().position(|byte| is_quote(*byte)) {
            stop = start + quote;
        }
        self.cut(start.min(stop)..stop);
    }

    /// Where a quote closes; an escaped one closes at the next one.
    fn close(&mut self, from: usize, quote: u8, escaped: bool) -> Option<usize> {
        let unclosed = usize::from(quote == b'"');
        if self.unclosed[unclosed] {
            return None;
        }
        let mut at = from;
        while let Some(found) = memchr::memchr(quote, &self.bytes[at.min(self.bytes.len())..]) {
            let close = at + found;
            let slashes = self.bytes[from..close].iter().rev().take_while(|byte| **byte == b'\\').count();
            if escaped || slashes % 2 == 0 {
                return Some(close);
            }
            at = close + 1;
        }
        self.unclosed[unclosed] = true;
        None
    }

    fn cut(&mut self, value: Range<usize>) {
        if !names::is_placeholder(&self.text[value.clone()]) {
            self.cuts.push(value);
        }
    }

    /// Cuts what stands behind the colon of `user:password`; not of `uid:gid`.
    fn account(&mut self, bare: &Range<usize>, word: &Range<usize>) -> bool {
        let plain = &self.text[bare.clone()];
        let sign = match self.program.trait_ {
            Trait::Samba => '%',
            Trait::Lftp => ',',
            _ => ':',
        };
        let numeric = plain.bytes().all(|byte| byte.is_ascii_digit() || byte == b':');
        match plain.find(sign) {
            Some(place) if place > 0 && !numeric && !plain.contains("://") => {
                self.rest(bare.start + place + 1, word, bare, true);
                true
            }
            // With `--auth-type bearer` there is no user.
            None if self.program.trait_ == Trait::Httpie && names::is_random(plain) => {
                self.rest(bare.start, word, bare, true);
                true
            }
            _ => false,
        }
    }

    /// Cuts what is left of a word: to the closing quote of the one that it begins with, else as [`Scan::value`] does.
    fn rest(&mut self, start: usize, word: &Range<usize>, bare: &Range<usize>, long: bool) {
        let opening = self.bytes[word.start..bare.start].iter().rev().copied().find(|byte| is_quote(*byte));
        match opening.and_then(|quote| self.close(start, quote, false)) {
            Some(close) => {
                self.cut(start..close);
                self.at = self.at.max(close);
            }
            None => self.value(start, word.end, long),
        }
    }

    /// Cuts a patch: to its last brace.
    fn body(&mut self, word: &Range<usize>) {
        let end = match memchr::memrchr(b'}', &self.bytes[word.start..]) {
            Some(brace) if self.bytes[word.start..word.end].contains(&b'{') => word.start + brace + 1,
            _ => word.end,
        };
        self.cut(word.start..end);
        self.at = self.at.max(end);
    }

    /// Reads an option; true if it was taken whole.
    fn option(&mut self, word: &Range<usize>, bare: &Range<usize>) -> bool {
        let plain = &self.text[bare.clone()];
        let program = self.program;
        let trait_ = program.trait_;
        if trait_ == Trait::Htpasswd && !plain.starts_with("--") {
            self.htpasswd(plain);
            return true;
        }
        let patches = self.state.patch && self.state.secret;
        if patches && matches!(plain, "-p" | "--patch") {
            self.next = Next::Body;
            return true;
        }
        if let Some(patch) = plain.strip_prefix("--patch=").filter(|_| patches) {
            self.body(&(bare.end - patch.len()..word.end));
            return true;
        }
        self.header = matches!(plain, "-H" | "--header");
        if trait_ == Trait::Curl && plain == "-b" {
            self.next = Next::Cookies;
            return true;
        }
        if let Some(cookies) =
            plain.strip_prefix("-b").filter(|pair| trait_ == Trait::Curl && pair.contains('='))
        {
            let cookies = bare.end - cookies.len()..bare.end;
            return self.follows(Next::Cookie, word, &cookies);
        }
        if trait_ == Trait::Httpie && plain == "-a" {
            self.next = Next::Account;
            return true;
        }
        let known = !program.login || self.state.login;
        if known && program.next.contains(&plain) {
            self.next = Next::Value;
            return true;
        }
        let glued = program
            .glued
            .iter()
            .find(|option| known && plain.starts_with(**option) && plain.len() > option.len());
        if let Some(option) = glued.filter(|_| !plain.starts_with("--")) {
            self.value(bare.start + option.len(), word.end, true);
            return true;
        }
        self.any_option(word, bare)
    }

    /// Reads one-letter options of `htpasswd`: the last may be one with a value, glued to it or the next word.
    fn htpasswd(&mut self, plain: &str) {
        let valued = plain.find(['C', 'r']);
        let flags = &plain[..valued.unwrap_or(plain.len())];
        self.state.batch |= flags.contains('b');
        self.state.prints |= flags.contains('n');
        if valued.is_some_and(|place| place + 1 == plain.len()) {
            self.next = Next::Skip;
        }
    }

    /// Reads what means the same to most programs.
    fn any_option(&mut self, word: &Range<usize>, bare: &Range<usize>) -> bool {
        let plain = &self.text[bare.clone()];
        let quiet = matches!(self.program.trait_, Trait::Quiet | Trait::Kubectl | Trait::Openssl);
        let from = |prefix: usize| bare.start + prefix..bare.end;
        if let Some(glued) = plain.strip_prefix("-p") {
            let name = plain.split(['=', ':']).next().unwrap_or_default();
            let other = glued.starts_with(['=', '/', '-'])
                || NO_PASSWORDS.contains(&name)
                || names::promise(name.as_bytes()).is_some();
            if !glued.is_empty() && !other && !quiet && !names::is_ports(glued) {
                self.value(bare.start + 2, word.end, true);
                return true;
            }
        }
        if !quiet {
            let upper = plain == "-U" && matches!(self.program.trait_, Trait::Curl | Trait::Samba);
            if upper || ACCOUNTS.contains(&plain) {
                self.next = Next::Account;
                return true;
            }
            let glued = ACCOUNTS.iter().find_map(|option| match plain.strip_prefix(option)?.as_bytes() {
                [b'=', ..] => Some(option.len() + 1),
                [_, ..] if option.len() == 2 => Some(2),
                _ => None,
            });
            if glued.is_some_and(|length| self.account(&from(length), word)) {
                return true;
            }
        }
        if let Some(literal) = plain.strip_prefix("--from-literal") {
            match literal.get(1..).and_then(|pair| pair.find('=')) {
                Some(sign) => self.value(bare.end - literal.len() + 1 + sign + 1, word.end, true),
                None => self.next = Next::Pair,
            }
            return true;
        }
        if !plain.contains(['=', ':']) {
            self.next = match names::promise(plain.as_bytes()) {
                Some(Promise::Authorization) => Next::Scheme,
                Some(_) => Next::Value,
                None => Next::Anything,
            };
        }
        false
    }

    /// Reads a word that is no option; true if it was taken whole.
    fn operand(&mut self, word: &Range<usize>, bare: &Range<usize>) -> bool {
        self.operands += 1;
        let plain = &self.text[bare.clone()];
        match self.program.trait_ {
            Trait::Echo => return self.printed(word, bare),
            Trait::Htpasswd if self.state.batch && self.operands == if self.state.prints { 2 } else { 3 } => {
                self.value(word.start, word.end, true);
                return true;
            }
            Trait::Vault => return self.vault(word, bare),
            Trait::Oracle => return self.oracle(bare) || self.sentence(word, bare),
            Trait::Rabbitmq if self.state.writes && self.operands == 2 => {
                self.value(word.start, word.end, true);
                return true;
            }
            Trait::Rabbitmq if matches!(plain, "add_user" | "change_password" | "authenticate_user") => {
                self.state.writes = true;
                self.operands = 0;
            }
            Trait::Kubectl => {
                self.state.patch |= plain == "patch";
                self.state.secret |= matches!(plain, "secret" | "secrets") || plain.starts_with("secret/");
            }
            Trait::Openssl if plain.starts_with("pass:") => {
                self.value(bare.start + 5, word.end, true);
                return true;
            }
            Trait::Setter if names_setting(plain) => {
                self.next = Next::Value;
                return true;
            }
            _ => {}
        }
        self.sentence(word, bare)
    }

    /// Reads a word as one of a sentence, of SQL, or of a header.
    fn sentence(&mut self, word: &Range<usize>, bare: &Range<usize>) -> bool {
        let plain = &self.text[bare.clone()];
        let is = |text: &str| plain.eq_ignore_ascii_case(text);
        if let Some(text) = plain.strip_prefix("<<<") {
            self.program = programs::find("echo").unwrap_or(self.program);
            return !text.is_empty() && self.printed(word, &(bare.start + 3..bare.end));
        }
        if plain.starts_with("sk-")
            && plain.len() >= 23
            && plain.bytes().skip(3).any(|b| b.is_ascii_uppercase())
        {
            self.value(bare.start, word.end, true);
            return true;
        }
        for (scheme, next) in [("bearer", Next::Random), ("basic", Next::Basic)] {
            let head = plain.get(..scheme.len()).filter(|head| head.eq_ignore_ascii_case(scheme));
            match (head, plain.as_bytes().get(scheme.len())) {
                (Some(_), None) => self.next = next,
                (Some(_), Some(b'+')) => {
                    return self.follows(next, word, &(bare.start + scheme.len() + 1..bare.end));
                }
                _ => {}
            }
        }
        self.state.login |= plain == "login";
        if is("identified") {
            self.next = Next::By;
        } else if is("password") && !self.apart {
            self.next = Next::Quoted;
        } else if self.apart && !plain.contains(['=', ':']) && names::promise(plain.as_bytes()).is_some() {
            self.next = Next::Sign;
        }
        if self.next == Next::Anything && is_bare_name(plain) && names::promise(plain.as_bytes()).is_some() {
            self.next = Next::Sign;
        }
        false
    }

    /// A word that is printed: a credential if a program reads it as one.
    fn printed(&mut self, word: &Range<usize>, bare: &Range<usize>) -> bool {
        let feeds = *self.feeds.get_or_insert_with(|| {
            let readers: [&[u8]; 7] = [
                b"chpasswd",
                b"smbpasswd",
                b"passwd --stdin",
                b"| passwd",
                b"|passwd",
                b"--password-stdin",
                b"sudo -S",
            ];
            readers.iter().any(|reader| memmem::find(self.bytes, reader).is_some())
        });
        if !feeds {
            return false;
        }
        let plain = &self.text[bare.clone()];
        match plain.find(':') {
            Some(colon) if !plain.contains("://") => self.rest(bare.start + colon + 1, word, bare, false),
            _ => self.rest(bare.start, word, bare, false),
        }
        true
    }

    fn vault(&mut self, word: &Range<usize>, bare: &Range<usize>) -> bool {
        let plain = &self.text[bare.clone()];
        let sign = plain.find('=');
        match (plain, sign) {
            ("login", _) => self.state.login = true,
            ("put" | "write" | "patch", _) => self.state.writes = true,
            (_, None) if self.state.login => {
                self.value(bare.start, word.end, true);
                return true;
            }
            (_, Some(sign)) if self.state.writes => {
                self.value(bare.start + sign + 1, word.end, true);
                return true;
            }
            _ => {}
        }
        false
    }

    /// Cuts the password of `USER/PASSWORD@DATABASE`.
    fn oracle(&mut self, bare: &Range<usize>) -> bool {
        let plain = &self.text[bare.clone()];
        self.state.prints |= plain.starts_with('@');
        let (key, account) = plain.split_once('=').unwrap_or(("userid", plain));
        let Some((user, rest)) = account.split_once('/').filter(|_| key.eq_ignore_ascii_case("userid"))
        else {
            return false;
        };
        if self.state.prints || user.is_empty() || user.contains('@') {
            return false;
        }
        let password = rest.rfind('@').unwrap_or(rest.len());
        let start = bare.end - rest.len();
        self.cut(start..start + password);
        true
    }

    /// Finds `name=value` and `name: value` within a word.
    fn pairs(&mut self, word: &Range<usize>) {
        let mut name = word.start..word.start;
        let mut at = word.start;
        let tail = self.text[self.bare(word)].rsplit(['=', ':']).next();
        if tail.is_some_and(|tail| tail.eq_ignore_ascii_case("bearer")) {
            self.next = Next::Random;
        }
        while at < word.end {
            let byte = self.bytes[at];
            let sign = match byte {
                b'=' | b':' => 1,
                b',' if self.is_item(&name, at) => 1,
                b'%' if matches!(self.bytes[at..].get(..3), Some(b"%3d" | b"%3D")) => 3,
                _ => 0,
            };
            if sign > 0 {
                let quoted = self.bytes[name.end..at].iter().all(|byte| is_quote(*byte) || *byte == b'\\');
                if !name.is_empty() && quoted && at - name.end <= 2 {
                    let end = self.pair(&name, at, at + sign, word);
                    if end >= word.end {
                        return;
                    }
                    at = end.max(at + sign);
                    name = at..at;
                    continue;
                }
                at += sign;
                continue;
            }
            if is_name(byte) {
                let start = if name.end == at { name.start } else { at };
                name = start..at + 1;
            }
            at += 1;
        }
    }

    /// True for the comma of `"--password","VALUE"`, as arrays of words are written.
    fn is_item(&self, name: &Range<usize>, comma: usize) -> bool {
        let quote = |at: usize| self.bytes.get(at).is_some_and(|byte| is_quote(*byte));
        self.bytes[name.clone()].starts_with(b"-") && quote(comma - 1) && quote(comma + 1)
    }

    /// Reads the pair of this name, whose sign ends at `value`; says where to go on.
    fn pair(&mut self, name: &Range<usize>, sign: usize, value: usize, word: &Range<usize>) -> usize {
        let text = &self.bytes[name.clone()];
        let asked = name.start > 0 && matches!(self.bytes[name.start - 1], b'?' | b'&');
        let promise = match names::promise(text) {
            None if asked && names::is_query_secret(text) => Promise::Random,
            Some(_) if names::is_directory(text, &self.bytes[value..word.end]) => return value,
            Some(promise) => promise,
            None => return value,
        };
        match (promise, value < word.end) {
            (Promise::Authorization, false) => self.next = Next::Scheme,
            (Promise::Cookie, false) => self.next = Next::Cookie,
            (Promise::Authorization, true) => {
                let bare = self.bare(&(value..word.end));
                self.follows(Next::Scheme, &(value..word.end), &bare);
                return word.end;
            }
            (Promise::Random, false)
                if self.bytes[sign] == b':' && sign == name.end && !text.contains(&b'-') =>
            {
                self.next = Next::Random;
            }
            (_, false) => self.next = Next::Alone,
            (_, true) if self.bytes[sign] == b':' && !self.is_header(name, sign, value, promise) => {
                return value;
            }
            (_, true) => {
                let before = self.at;
                self.value(value, word.end, false);
                return if self.at > before { self.at } else { self.end_of_value(value, word.end) };
            }
        }
        word.end
    }

    /// True if a colon without a blank behind it ends a name: in JSON, in a header, or a password's.
    fn is_header(&self, name: &Range<usize>, sign: usize, value: usize, promise: Promise) -> bool {
        let text = &self.bytes[name.clone()];
        let quoted = sign > name.end || is_quote(self.bytes[value]) || self.bytes[value] == b'\\';
        let first = name.start == 0 || !matches!(self.bytes[name.start - 1], b':' | b'/' | b'@');
        let header = self.header || text.get(..2).is_some_and(|head| head.eq_ignore_ascii_case(b"x-"));
        // No image, kind or namespace is called so.
        let marked = text.iter().skip(1).any(|b| b.is_ascii_uppercase() || *b == b'_');
        let no_object = text.starts_with(b"-") || marked;
        let password = promise == Promise::Password && !text.contains(&b'-');
        quoted || (first && (header || no_object || password))
    }

    /// Where an unquoted value within a word ends.
    fn end_of_value(&self, value: usize, end: usize) -> usize {
        let length = self.bytes[value..end].iter().position(|byte| is_quote(*byte));
        length.map_or(end, |length| value + length.max(1))
    }
}

/// True for a word of two letters or more that is nothing but a name, with a mark between its words: `DB_PASS`.
fn is_bare_name(plain: &str) -> bool {
    plain.len() <= 64 && plain.contains('_') && plain.bytes().all(is_name)
}

/// True for the name of a setting that holds a credential; npm writes whose it is before it: `//registry/:_authToken`.
fn names_setting(plain: &str) -> bool {
    let name = match plain.rsplit_once(':') {
        Some((owner, name)) if owner.starts_with("//") => name,
        _ => plain,
    };
    !name.contains(['=', ':']) && names::promise(name.as_bytes()).is_some()
}

fn is_reference(plain: &str) -> bool {
    plain == "stdin" || ["env:", "file:", "fd:"].iter().any(|kind| plain.starts_with(kind))
}

/// True for the base64 of `user:password`.
fn is_basic(plain: &str) -> bool {
    use base64::Engine;
    let engine = base64::engine::general_purpose::STANDARD_NO_PAD;
    let head = &plain[..plain.floor_char_boundary(1024)];
    let head = head.trim_end_matches(['=', '"', '\'']);
    engine.decode(head).is_ok_and(|decoded| decoded.contains(&b':'))
}

/// The program that a word names, maybe behind a path or as the value of a field.
fn program_of(plain: &str) -> Option<&'static Program> {
    if plain.len() > 64 && !plain.contains('/') || plain.contains("://") {
        return None;
    }
    let name = plain.rsplit(['/', '=', '(', '`']).next()?;
    programs::find(name)
}
