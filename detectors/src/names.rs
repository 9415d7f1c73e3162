//! Names as people type them: globs over them, and what a misspelt one was probably meant to be.

/// True if `text` is as `glob` says: `*` is anything, `?` one character, the rest itself.
pub fn matches(glob: &str, text: &str) -> bool {
    let (glob, text): (Vec<char>, Vec<char>) = (glob.chars().collect(), text.chars().collect());
    let (mut at, mut here) = (0, 0);
    // Where the last star stands, and how much of the text it has taken so far.
    let mut star = None;
    while here < text.len() {
        match glob.get(at) {
            Some('*') => {
                star = Some((at, here));
                at += 1;
            }
            Some(c) if *c == '?' || *c == text[here] => (at, here) = (at + 1, here + 1),
            _ => {
                let Some((place, taken)) = star else { return false };
                star = Some((place, taken + 1));
                (at, here) = (place + 1, taken + 1);
            }
        }
    }
    glob[at..].iter().all(|c| *c == '*')
}

/// The candidate that a misspelt word was probably meant to be.
pub fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let limit = (word.chars().count() / 3).clamp(1, 4);
    let near = candidates.into_iter().map(|candidate| (strsim::osa_distance(word, candidate), candidate));
    near.filter(|(distance, _)| *distance <= limit).min().map(|(_, candidate)| candidate)
}

/// `; did you mean ...?`, or nothing.
pub fn did_you_mean<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> String {
    nearest(word, candidates).map_or_else(String::new, |near| format!("; did you mean `{near}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        for (glob, text, expected) in [
            ("*", "", true),
            ("*", "anything\nat all", true),
            ("rbac/*", "rbac/activity", true),
            ("rbac/*", "authn/rbac/x", false),
            ("*burst", "recon/denied-burst", true),
            ("*a*b*c", "xxaxxbxxbxxc", true),
            ("*a*b*c", "xxaxxcxxb", false),
            ("pod-?xec", "pod-exec", true),
            ("pod-?xec", "pod-xec", false),
            ("", "", true),
            ("", "a", false),
            ("a", "A", false),
            ("**", "ab", true),
            ("system:serviceaccount:ci:*", "system:serviceaccount:ci:deployer", true),
            ("[a]", "[a]", true),
        ] {
            assert_eq!(matches(glob, text), expected, "{glob:?} {text:?}");
        }
    }

    #[test]
    fn near_words_are_found() {
        let names = ["actor.name", "actor.namespace", "pod.images"];
        assert_eq!(nearest("actor.nmae", names), Some("actor.name"));
        assert_eq!(nearest("pod.image", names), Some("pod.images"));
        assert_eq!(nearest("secret.type", names), None);
        assert_eq!(nearest("lsits", ["lists", "cluster"]), Some("lists"));
        assert_eq!(nearest("colour", ["cluster"]), None);
    }
}
