use super::*;

#[track_caller]
fn check(text: &str, expected: &str) {
    assert_eq!(scrub(text), expected);
    assert_eq!(scrub(expected), expected, "scrubbed again");
}

#[test]
fn credentials_are_replaced_by_their_form() {
    for (text, expected) in [
        ("psql postgres://app:s3cret@db/shop", "psql postgres://app:[redacted]@db/shop"),
        ("psql postgres://app:s3:c@ret@db/shop", "psql postgres://app:[redacted]@db/shop"),
        ("redis://:hunter2@cache:6379/0", "redis://:[redacted]@cache:6379/0"),
        ("x AKIAABCDEFGHIJKLMNOP y", "x [redacted] y"),
        ("t=eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln end", "t=[redacted] end"),
        ("a -----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY----- b", "a [redacted] b"),
        ("a -----BEGIN PRIVATE KEY-----\\nMIIE", "a [redacted]"),
        ("echo LS0tLS1CRUdJTiBSU0EgUFJJVkFURSBLRVktLS0tLQo= | base64 -d", "echo [redacted] | base64 -d"),
        (
            "git clone https://x:ghp_0123456789abcdefghij0123456789abcdef@h/r",
            "git clone https://x:[redacted]@h/r",
        ),
        ("glpat-0123456789abcdefghij", "[redacted]"),
        ("git clone https://0123456789abcdef@h/r", "git clone https://[redacted]@h/r"),
        ("git clone https://SWORDFISH9@h/r", "git clone https://[redacted]@h/r"),
    ] {
        check(text, expected);
        check(&tokens(text), expected);
    }
}

#[test]
fn credentials_are_replaced_by_their_name() {
    for (text, expected) in [
        ("export AWS_SECRET_ACCESS_KEY=abcd1234", "export AWS_SECRET_ACCESS_KEY=[redacted]"),
        ("DB_PASS=hunter2 ./run", "DB_PASS=[redacted] ./run"),
        ("PGPASSWORD=V psql -h db", "PGPASSWORD=[redacted] psql -h db"),
        ("DB_PASS='two words' ./run", "DB_PASS='[redacted]' ./run"),
        ("DB_PASS=$'hunter2' ./run", "DB_PASS=$'[redacted]' ./run"),
        ("DB_PASS=$'two words' ./run", "DB_PASS=$'[redacted]' ./run"),
        ("tool --password $'V' x", "tool --password $'[redacted]' x"),
        ("client_secret:V", "client_secret:[redacted]"),
        ("tool clientSecret:V x", "tool clientSecret:[redacted] x"),
        ("tool --password:V x", "tool --password:[redacted] x"),
        ("tool --passwd:V --token:W", "tool --passwd:[redacted] --token:[redacted]"),
        ("DB_PASS=hunter2;id", "DB_PASS=[redacted];id"),
        ("vault login --token s.12345", "vault login --token [redacted]"),
        ("tool --password V --verbose", "tool --password [redacted] --verbose"),
        ("tool --password p&ss;w|rd x", "tool --password [redacted] x"),
        ("tool --password=V x", "tool --password=[redacted] x"),
        ("tool --db-password \"a b\" x", "tool --db-password \"[redacted]\" x"),
        ("java -Dspring.datasource.password=V -jar a", "java -Dspring.datasource.password=[redacted] -jar a"),
        (
            r#"curl -d {"user":"x","password":"V","n":1}"#,
            r#"curl -d {"user":"x","password":"[redacted]","n":1}"#,
        ),
        (r#"{"password": "a b", "token": "c"}"#, r#"{"password": "[redacted]", "token": "[redacted]"}"#),
        (r#"{\"password\":\"V\"}"#, r#"{\"password\":\"[redacted]\"}"#),
        (r#"["tool","--password","V","x"]"#, r#"["tool","--password","[redacted]","x"]"#),
        ("curl --oauth2-bearer V https://x", "curl --oauth2-bearer [redacted] https://x"),
        ("password: hunter2", "password: [redacted]"),
        ("password = hunter2", "password = [redacted]"),
        ("jdbc:x://db?user=a&password=V&ssl=1", "jdbc:x://db?user=a&password=[redacted]&ssl=1"),
        ("curl https://x/?key=V&q=1", "curl https://x/?key=[redacted]&q=1"),
        (
            "wget https://s3/x?X-Amz-Signature=0a1b&X-Amz-Date=1",
            "wget https://s3/x?X-Amz-Signature=[redacted]&X-Amz-Date=1",
        ),
        ("curl https://b/x?sv=2024&sig=abc%2Bdef", "curl https://b/x?sv=2024&sig=[redacted]"),
        (
            "aws configure set aws_secret_access_key abcdefgh12345",
            "aws configure set aws_secret_access_key [redacted]",
        ),
        ("mysql -e ALTER USER a IDENTIFIED BY 'V w'", "mysql -e ALTER USER a IDENTIFIED BY '[redacted]'"),
        ("psql -c ALTER ROLE a PASSWORD 'V'", "psql -c ALTER ROLE a PASSWORD '[redacted]'"),
    ] {
        check(text, expected);
    }
}

#[test]
fn headers() {
    for (text, expected) in [
        ("curl -H Authorization: Bearer abc.def", "curl -H Authorization: Bearer [redacted]"),
        ("curl -H 'Authorization: Basic aGk6aG8=' x", "curl -H 'Authorization: Basic [redacted]' x"),
        ("curl -H Authorization:Basic V x", "curl -H Authorization:Basic [redacted] x"),
        ("curl -H \"authorization: V\" x", "curl -H \"authorization: [redacted]\" x"),
        ("Proxy-Authorization: Basic V", "Proxy-Authorization: Basic [redacted]"),
        ("git -c http.extraheader=Bearer abc123", "git -c http.extraheader=Bearer [redacted]"),
        ("sent Basic aGk6aG8= there", "sent Basic [redacted] there"),
        ("curl -H X-Vault-Token: hvx123 u", "curl -H X-Vault-Token: [redacted] u"),
        (r#"sh -c "curl -H 'X-Auth-Token: abc' u""#, r#"sh -c "curl -H 'X-Auth-Token: [redacted]' u""#),
        ("curl -H X-Api-Key:abc u", "curl -H X-Api-Key:[redacted] u"),
        ("curl -H x-functions-key:V u", "curl -H x-functions-key:[redacted] u"),
        ("curl -H 'x-functions-key: V' u", "curl -H 'x-functions-key: [redacted]' u"),
        ("curl -H 'Ocp-Apim-Subscription-Key: V' u", "curl -H 'Ocp-Apim-Subscription-Key: [redacted]' u"),
        ("curl -H 'ocp-apim-subscription-key:V' u", "curl -H 'ocp-apim-subscription-key:[redacted]' u"),
        ("Ocp-Apim-Subscription-Key:V", "Ocp-Apim-Subscription-Key:[redacted]"),
        ("curl -H apikey:V u", "curl -H apikey:[redacted] u"),
        ("curl -H 'Cookie: a=b; c=d' u", "curl -H 'Cookie: [redacted]; [redacted]' u"),
    ] {
        check(text, expected);
    }
}

#[test]
fn programs() {
    for (text, expected) in [
        ("mysql -uroot -phunter2 shop", "mysql -uroot -p[redacted] shop"),
        ("mysql -u root -p123456 shop", "mysql -u root -p[redacted] shop"),
        ("sh -c \"mysqldump -p'a b' shop\"", "sh -c \"mysqldump -p'[redacted]' shop\""),
        ("docker login -u dana -p V registry", "docker login -u dana -p [redacted] registry"),
        ("docker login --password V", "docker login --password [redacted]"),
        ("oc login -u dana -p V", "oc login -u dana -p [redacted]"),
        ("echo root:V | chpasswd", "echo root:[redacted] | chpasswd"),
        ("sh -c 'echo \"root:V\"|chpasswd'", "sh -c 'echo \"root:[redacted]\"|chpasswd'"),
        ("chpasswd <<< root:V", "chpasswd <<< root:[redacted]"),
        ("echo V | docker login --password-stdin", "echo [redacted] | docker login --password-stdin"),
        ("echo V | sudo -S id", "echo [redacted] | sudo -S id"),
        ("openssl enc -aes-256-cbc -k V -in f", "openssl enc -aes-256-cbc -k [redacted] -in f"),
        ("openssl rsa -passin pass:V -in f", "openssl rsa -passin pass:[redacted] -in f"),
        ("openssl enc -pass pass:V -in f", "openssl enc -pass pass:[redacted] -in f"),
        ("openssl enc -pass env:PW -in f", "openssl enc -pass env:PW -in f"),
        ("curl -u dana:pw https://x/", "curl -u dana:[redacted] https://x/"),
        ("curl -udana:pw https://x/", "curl -udana:[redacted] https://x/"),
        ("curl --user=dana:pw https://x/", "curl --user=dana:[redacted] https://x/"),
        ("curl -u 'dana:p w' https://x/", "curl -u 'dana:[redacted]' https://x/"),
        ("etcdctl --user root:V get /", "etcdctl --user root:[redacted] get /"),
        ("sshpass -p hunter2 ssh -p 2222 db", "sshpass -p [redacted] ssh -p 2222 db"),
        ("sshpass -phunter2 ssh -p2222 db", "sshpass -p[redacted] ssh -p2222 db"),
        ("redis-cli -h db -a hunter2 ping", "redis-cli -h db -a [redacted] ping"),
        (
            "kubectl create secret generic x --from-literal=k=v",
            "kubectl create secret generic x --from-literal=k=[redacted]",
        ),
        (
            "kubectl create secret generic x --from-literal k=v",
            "kubectl create secret generic x --from-literal k=[redacted]",
        ),
        (
            "kubectl create secret docker-registry x --docker-password=V",
            "kubectl create secret docker-registry x --docker-password=[redacted]",
        ),
        (
            "kubectl -n a patch secret x -p {\"stringData\":{\"k\": \"v w\"}}",
            "kubectl -n a patch secret x -p [redacted]",
        ),
        ("htpasswd -b f u V", "htpasswd -b f u [redacted]"),
        ("htpasswd -nbB -C 10 u V", "htpasswd -nbB -C 10 u [redacted]"),
        ("vault login s.abc", "vault login [redacted]"),
        ("vault kv put kv/x a=V b=W", "vault kv put kv/x a=[redacted] b=[redacted]"),
    ] {
        check(text, expected);
    }
}

#[test]
fn more_programs() {
    for (text, expected) in [
        ("ldapsearch -D cn=x -w V -b o=y", "ldapsearch -D cn=x -w [redacted] -b o=y"),
        ("mongosh -u a -p V", "mongosh -u a -p [redacted]"),
        ("tool -password V x", "tool -password [redacted] x"),
        ("curl -U dana:pw https://x/", "curl -U dana:[redacted] https://x/"),
        ("usermod -p V root", "usermod -p [redacted] root"),
        ("rabbitmqctl add_user u V", "rabbitmqctl add_user u [redacted]"),
        ("smbclient -U u%V //h/s", "smbclient -U u%[redacted] //h/s"),
        ("unzip -P V a.zip", "unzip -P [redacted] a.zip"),
        ("user=root command=mysql -phunter2 terminal=0", "user=root command=mysql -p[redacted] terminal=0"),
    ] {
        check(text, expected);
    }
}

#[test]
fn programs_with_ways_of_their_own() {
    for (text, expected) in [
        ("htpasswd -bnBC 10 u V", "htpasswd -bnBC 10 u [redacted]"),
        ("htpasswd -bBC10 f u V", "htpasswd -bBC10 f u [redacted]"),
        ("ipmitool -p 623 -U u -P V chassis status", "ipmitool -p 623 -U u -P [redacted] chassis status"),
        ("curl -b sid=V https://x/", "curl -b [redacted] https://x/"),
        ("curl -bsid=V https://x/", "curl -b[redacted] https://x/"),
        ("curl -b 'sid=V; t=W' https://x/", "curl -b '[redacted]; [redacted]' https://x/"),
        ("curl --cookie sid=V https://x/", "curl --cookie [redacted] https://x/"),
        ("mysqladmin -u root password V", "mysqladmin -u root password [redacted]"),
        ("mysqladmin -u root -pV flush-privileges", "mysqladmin -u root -p[redacted] flush-privileges"),
        ("REDISCLI_AUTH=V redis-cli ping", "REDISCLI_AUTH=[redacted] redis-cli ping"),
        (
            "npm config set //r.example.com/:_authToken V",
            "npm config set //r.example.com/:_authToken [redacted]",
        ),
        ("npm config set //r/:_authToken=V", "npm config set //r/:_authToken=[redacted]"),
        ("ssh-keygen -t rsa -N V -f k", "ssh-keygen -t rsa -N [redacted] -f k"),
        (
            "rabbitmqadmin -P 15672 -u u -p V list queues",
            "rabbitmqadmin -P 15672 -u u -p [redacted] list queues",
        ),
        ("http -a u:V https://x/", "http -a u:[redacted] https://x/"),
        ("plink -ssh -P 22 -l u -pw V h id", "plink -ssh -P 22 -l u -pw [redacted] h id"),
        ("lftp -u u,V sftp://h", "lftp -u u,[redacted] sftp://h"),
        ("lftp -e 'open -u u,V h; ls'", "lftp -e 'open -u u,[redacted] h; ls'"),
        ("sqlplus -S u/V@//db:1521/x @a.sql p/q", "sqlplus -S u/[redacted]@//db:1521/x @a.sql p/q"),
        ("sqlplus u/V@x@db as sysdba", "sqlplus u/[redacted]@db as sysdba"),
        ("/opt/oracle/bin/sqlplus \"u/V\"", "/opt/oracle/bin/sqlplus \"u/[redacted]\""),
        ("rman target sys/V@db catalog c/W", "rman target sys/[redacted]@db catalog c/[redacted]"),
        ("sqlldr userid=u/V control=/d/x.ctl", "sqlldr userid=u/[redacted] control=/d/x.ctl"),
        ("http -A bearer -a s3cr3tV https://x/", "http -A bearer -a [redacted] https://x/"),
        ("curl --proto =https -b sid=V https://x/", "curl --proto =https -b [redacted] https://x/"),
    ] {
        check(text, expected);
    }
}

#[test]
fn names_digests_and_ids_are_kept() {
    for text in [
        "0b7c6a2e-6a53-4f0e-9d0a-5e1f0a5b2c11",
        "registry.example.com/app@sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "registry.example.com:5000/shop/vault-token:1.2",
        "system:serviceaccount:kube-system:token-cleaner",
        "system:serviceaccount:ci-token:deployer",
        "/api/v1/namespaces/shop/serviceaccounts/ci/token",
        "cat /var/run/secrets/kubernetes.io/serviceaccount/token",
        "TOKEN=$(cat /var/run/secrets/kubernetes.io/serviceaccount/token)",
        "mysql -p shop -h db",
        "curl -u $USER:$PASS https://x/y:z",
        "kubectl/v1.34.0 (linux/amd64) kubernetes/abcdef0",
        "Basic Interactive Reconnaissance",
        "invalid bearer token",
        "find / -perm -4000 -print",
        "docker run -p 8080:80 -u 1000:1000 nginx",
        "ssh -p2222 db ; mkdir -pv /x ; ps -p1 ; tar -pxzf a ; nc -p4444 h",
        "nmap -p22,80 10.0.0.1",
        "kubectl get secret db-token -o yaml",
        "kubectl patch deployment web -p {\"spec\":{\"replicas\":3}}",
        "secrets \"db\" is forbidden: User \"dana\" cannot get resource \"secrets\" in API group \"\"",
        "PWD=/app/secret OLDPWD=/root bypass=true",
        "uptime: 12:03:04 http://h:8080/a@b",
        "echo hello:world | tr a b",
        "openssl s_client -connect db:443",
        "plink -pwfile /run/pw -l u h",
        "lftp -u dana sftp://h:2222/a,b",
        "sqlplus / as sysdba @/tmp/a.sql x/y",
        "sqlplus /nolog",
        "psql -p 5432 -U app",
        "echo hello > /tmp/x; cat /etc/passwd",
        "java -jar x.jar -profile prod; tool -profile prod -proxy=x",
        "python3 -m pip install -U pip:latest",
        "find / -name *.token; grep -r password /etc",
        "token: invalid",
        "uid:gid 12:03:04.000 Notice",
        "docker run --pull=always vault-token:1.2 db-secret:v2",
        "git clone https://dana@dev.azure.com/org/_git/x; git fetch ssh://git@example.com/r",
        "curl -b cookies.txt -H Host:web-token:8080 https://x/",
        "deleted Secret:shop/db and secret:shop/db",
        "docker -H tcp://build:2375 run token:1.2",
        "mysqladmin -u root flush-privileges",
        "htpasswd -c -B f u",
        "ipmitool -p 623 -H 10.0.0.1 chassis status",
        "npm config set registry https://r.example.com/",
        "https://oidc.example.com/realm#dana@example.com",
        "RBAC: allowed by ClusterRoleBinding \"token-reader\" of ClusterRole \"secret-reader\" to Group \"ops\"",
    ] {
        check(text, text);
    }
}

#[test]
fn words_without_what_joined_them() {
    assert_eq!(scrub_words("sh -c DB_PASSWORD hunter2 run"), "sh -c DB_PASSWORD [redacted] run");
    assert_eq!(scrub_words("sh -c cat shadow"), "sh -c cat shadow");
}

#[test]
fn uris_show_commands_scrubbed() {
    for (raw, expected) in [
        (
            "/api/v1/namespaces/a/pods/b/exec?command=mysql&command=-phunter2&container=c&stdin=true",
            "/api/v1/namespaces/a/pods/b/exec?command=mysql -p[redacted]&container=c&stdin=true",
        ),
        (
            "/a/exec?comm%61nd=mysql&container=c&command=-ph%26x",
            "/a/exec?command=mysql -p[redacted]&container=c",
        ),
        ("/x?access_token=abc&limit=5", "/x?access_token=[redacted]&limit=5"),
        ("/x?pass%77ord=a%20b&limit=5", "/x?password=[redacted]&limit=5"),
        ("/x?key=V&sig=W&X-Amz-Signature=Z", "/x?key=[redacted]&sig=[redacted]&X-Amz-Signature=[redacted]"),
        (
            "/x?next=https%3A%2F%2Fu%3Apw%40h%2F%3Ftoken%3Dt",
            "/x?next=https://u:[redacted]@h/?token=[redacted]",
        ),
        ("/proxy/login;password%3Dabc/x", "/proxy/login;password=[redacted]"),
        (
            "/api/v1/secrets?fieldSelector=metadata.name%3Ddb-token&labelSelector=token%3Da&limit=500&watch",
            "/api/v1/secrets?fieldSelector=metadata.name%3Ddb-token&labelSelector=token%3Da&limit=500&watch",
        ),
    ] {
        assert_eq!(uri(raw), expected);
    }
}

/// Texts that make a scan begin again and again: a quadratic one would take hours.
#[test]
fn hostile_texts_take_linear_time() {
    let parts = [
        "eyJ-",
        "eyJaaaaaaaa",
        "://a:",
        "-----BEGIN PRIVATE KEY ",
        "p='",
        "p=\"\\\"",
        "password=",
        "a:",
        "%3d",
        "%20",
        "AKIA",
        "-p ",
        "echo a:b|passwd ",
        "-u a:",
        "Authorization:",
        "{\"token\":",
        "'",
        "\\",
        "=",
        "?a&",
        "Cookie: a;",
        "@",
        "sk-",
        "patch secret -p {",
        "vault put a=",
        "password p='",
    ];
    for part in parts {
        for text in
            [part.repeat((1 << 20) / part.len()), format!("x=y {}", part.repeat((1 << 20) / part.len()))]
        {
            assert!(scrub(&text).len() + uri(&text).len() + scrub_words(&text).len() > 0);
        }
    }
}

proptest::proptest! {
    #[test]
    fn any_text_is_scrubbed(words in proptest::collection::vec("[ -~é\n]{0,6}|password=|'|\"|\\\\|://|Bearer |-p|%20|=|:|echo |passwd|&|;", 0..40)) {
        let text = words.concat();
        let once = scrub(&text).into_owned();
        let _ = (tokens(&text), uri(&text), scrub_words(&text));
        proptest::prop_assert!(once.len() <= text.len() + REDACTED.len() * text.len());
    }
}
