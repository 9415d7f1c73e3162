//! How everyday programs take credentials on their command line.

/// What is known of a program.
#[derive(Debug)]
pub(super) struct Program {
    /// Options whose next word is a credential.
    pub(super) next: &'static [&'static str],
    /// Options that a credential is glued to.
    pub(super) glued: &'static [&'static str],
    /// True if they are credentials only behind the word `login`.
    pub(super) login: bool,
    pub(super) trait_: Trait,
}

/// What a program does with its other words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trait {
    /// Nothing that is known. `-pVALUE` is a password.
    Unknown,
    /// `-pVALUE` is none, and `-u 1:2` is none either.
    Quiet,
    /// Names a setting, then its value.
    Setter,
    /// Prints its words, maybe to a program that reads a password.
    Echo,
    /// `htpasswd -b FILE USER PASSWORD`, `htpasswd -nb USER PASSWORD`.
    Htpasswd,
    /// `-pass pass:VALUE`.
    Openssl,
    /// `login TOKEN`; `kv put PATH KEY=VALUE`.
    Vault,
    /// `add_user NAME PASSWORD`.
    Rabbitmq,
    /// `-U USER:PASSWORD`.
    Curl,
    /// `-a USER:PASSWORD`, `-a TOKEN`.
    Httpie,
    /// `-U USER%PASSWORD`.
    Samba,
    /// `-u USER,PASSWORD`.
    Lftp,
    /// `USER/PASSWORD@DATABASE`, `userid=USER/PASSWORD`; what follows `@SCRIPT` are the script's words.
    Oracle,
    /// `create secret`, `patch secret -p BODY`.
    Kubectl,
}

const fn program(next: &'static [&'static str], glued: &'static [&'static str], trait_: Trait) -> Program {
    Program { next, glued, login: false, trait_ }
}

const fn after_login(trait_: Trait) -> Program {
    Program { next: &["-p"], glued: &["-p"], login: true, trait_ }
}

/// A program of which nothing is known.
pub(super) static UNKNOWN: Program = program(&[], &[], Trait::Unknown);

/// What is known of the program of this name.
pub(super) fn find(name: &str) -> Option<&'static Program> {
    static MYSQL: Program = program(&[], &["-p"], Trait::Unknown);
    static MYSQLADMIN: Program = program(&[], &["-p"], Trait::Setter);
    static PASSWORD: Program = program(&["-p"], &["-p"], Trait::Unknown);
    static UPPER: Program = program(&["-P"], &["-P"], Trait::Unknown);
    static LDAP: Program = program(&["-w"], &["-w"], Trait::Unknown);
    static REDIS: Program = program(&["-a", "--pass"], &["-a"], Trait::Unknown);
    static REGISTRY: Program = after_login(Trait::Quiet);
    static KUBECTL: Program = after_login(Trait::Kubectl);
    static QUIET: Program = program(&[], &[], Trait::Quiet);
    static SETTER: Program = program(&[], &[], Trait::Setter);
    static KEYGEN: Program = program(&["-N", "-P"], &["-N", "-P"], Trait::Quiet);
    static IPMI: Program = program(&["-P", "-k", "-y"], &["-P"], Trait::Quiet);
    static HTTPIE: Program = program(&[], &[], Trait::Httpie);
    static ECHO: Program = program(&[], &[], Trait::Echo);
    static HTPASSWD: Program = program(&[], &[], Trait::Htpasswd);
    static OPENSSL: Program = program(&["-k", "-K", "-hmac"], &[], Trait::Openssl);
    static VAULT: Program = program(&[], &[], Trait::Vault);
    static RABBITMQ: Program = program(&[], &[], Trait::Rabbitmq);
    static SAMBA: Program = program(&[], &[], Trait::Samba);
    static LFTP: Program = program(&[], &[], Trait::Lftp);
    static ORACLE: Program = program(&[], &[], Trait::Oracle);
    static PUTTY: Program = program(&["-pw"], &[], Trait::Quiet);
    static CURL: Program = program(&["--pass", "--proxy-pass"], &[], Trait::Curl);
    static SNMP: Program = program(&["-c", "-A", "-X"], &[], Trait::Quiet);
    Some(match name {
        "mysql" | "mysqldump" | "mysqlimport" | "mysqlsh" | "mysqlshow" | "mysqlbinlog" | "mysqlcheck"
        | "mysqlpump" | "mycli" | "mariadb" | "mariadb-dump" | "mariadb-import" | "7z" | "7za" | "7zr"
        | "rar" | "unrar" => &MYSQL,
        "mysqladmin" | "mariadb-admin" => &MYSQLADMIN,
        "sshpass" | "mongo" | "mongosh" | "mongodump" | "mongorestore" | "mongoexport" | "mongoimport"
        | "mongostat" | "mongotop" | "cqlsh" | "cypher-shell" | "useradd" | "usermod" | "arangosh"
        | "rabbitmqadmin" => &PASSWORD,
        "sqlcmd" | "bcp" | "tsql" | "mosquitto_pub" | "mosquitto_sub" | "zip" | "unzip" => &UPPER,
        "ldapsearch" | "ldapadd" | "ldapmodify" | "ldapdelete" | "ldapwhoami" | "ldappasswd"
        | "ldapcompare" | "ldapmodrdn" => &LDAP,
        "redis-cli" | "valkey-cli" | "keydb-cli" => &REDIS,
        "docker" | "podman" | "nerdctl" | "buildah" | "skopeo" | "helm" | "oras" | "crane" | "az" | "cf"
        | "argocd" | "rancher" => &REGISTRY,
        "kubectl" | "oc" => &KUBECTL,
        "bash" | "go" | "gradle" | "java" | "journalctl" | "make" | "mvn" | "node" | "php" | "python"
        | "python3" | "ruby" | "systemctl" | "terraform" | "cargo" | "chown" | "cp" | "dash" | "find"
        | "gdb" | "iptables" | "ip6tables" | "kill" | "lsof" | "mkdir" | "mktemp" | "nc" | "ncat"
        | "netcat" | "netstat" | "nmap" | "nsenter" | "patch" | "perl" | "ps" | "pstree" | "read"
        | "rsync" | "runuser" | "scp" | "setpriv" | "sftp" | "sh" | "ss" | "ssh" | "strace" | "sudo"
        | "tar" | "test" | "top" | "tree" | "xargs" | "zsh" => &QUIET,
        "aws" | "npm" | "yarn" | "pnpm" | "pip" | "gcloud" | "git" => &SETTER,
        "ssh-keygen" => &KEYGEN,
        "ipmitool" => &IPMI,
        "http" | "https" | "httpie" | "xh" | "xhs" => &HTTPIE,
        "echo" | "printf" => &ECHO,
        "htpasswd" => &HTPASSWD,
        "curl" => &CURL,
        "openssl" => &OPENSSL,
        "vault" | "bao" => &VAULT,
        "rabbitmqctl" => &RABBITMQ,
        "smbclient" | "rpcclient" | "smbget" | "winexe" => &SAMBA,
        "lftp" => &LFTP,
        "sqlplus" | "sqlldr" | "rman" | "expdp" | "impdp" => &ORACLE,
        "plink" | "pscp" | "psftp" | "putty" | "plink.exe" | "pscp.exe" => &PUTTY,
        "snmpget" | "snmpset" | "snmpwalk" | "snmpbulkwalk" => &SNMP,
        _ => return None,
    })
}
