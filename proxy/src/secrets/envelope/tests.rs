use super::*;

/// Made with age 1.1.1, the program: `age-keygen`, `age -r ... `, `age -p -a`.
const IDENTITY: &[u8] = include_bytes!("vectors/identity.txt");
const FOR_RECIPIENT: &[u8] = include_bytes!("vectors/recipient.age");
const WITH_PASSPHRASE: &[u8] = include_bytes!("vectors/passphrase.age");
const PASSPHRASE: &[u8] = b"correct horse battery staple\n";

const PLAIN: &[u8] = b"schema = 1\n";
/// What trying a passphrase costs in tests.
const CHEAP: u8 = 4;

fn identity() -> (Key, x25519::Recipient) {
    let (text, recipient) = new_identity();
    (Key::identities(text.as_bytes()).unwrap(), recipient.parse().unwrap())
}

fn passphrase(text: &str) -> (Key, SecretString) {
    (Key::passphrase(text.as_bytes()).unwrap(), SecretString::from(text))
}

#[test]
fn what_the_age_program_sealed_opens_and_only_with_its_key() {
    let (mine, words) = (Key::identities(IDENTITY).unwrap(), Key::passphrase(PASSPHRASE).unwrap());
    for (key, sealed) in [(&mine, FOR_RECIPIENT), (&words, WITH_PASSPHRASE)] {
        assert!(is_sealed(sealed));
        assert!(String::from_utf8_lossy(&key.open(sealed).unwrap()).contains("canary-of-the-age-program"));
    }
    assert_eq!(mine.open(WITH_PASSPHRASE).unwrap_err(), Unopened::WantsPassphrase);
    assert_eq!(words.open(FOR_RECIPIENT).unwrap_err(), Unopened::WantsIdentity);
    assert_eq!(identity().0.open(FOR_RECIPIENT).unwrap_err(), Unopened::WrongKey);
}

#[test]
fn any_one_recipient_opens_it_and_so_does_the_passphrase_and_nobody_else() {
    let ((one, to_one), (two, to_two), (stranger, _)) = (identity(), identity(), identity());
    let sealed = seal_for(PLAIN, &[to_one, to_two]).unwrap();
    assert!(is_sealed(&sealed) && sealed.is_ascii());
    assert_eq!(*one.open(&sealed).unwrap(), PLAIN);
    assert_eq!(*two.open(&sealed).unwrap(), PLAIN);
    assert_eq!(stranger.open(&sealed).unwrap_err(), Unopened::WrongKey);

    let ((key, words), (other, _)) = (passphrase("four words"), passphrase("five words"));
    let sealed = seal_with(PLAIN, &words, CHEAP).unwrap();
    assert_eq!(*key.open(&sealed).unwrap(), PLAIN);
    assert_eq!(other.open(&sealed).unwrap_err(), Unopened::WrongKey);
}

#[test]
fn a_file_cannot_ask_for_more_work_than_the_age_program_does() {
    let (key, words) = passphrase("four words");
    let sealed = String::from_utf8(seal_with(PLAIN, &words, CHEAP).unwrap()).unwrap();
    let lines: String = sealed.lines().filter(|line| !line.starts_with('-')).collect();
    let mut binary = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, lines).unwrap();
    let end = binary.windows(3).position(|at| at == b" 4\n").unwrap();
    for (claimed, work) in [("19", 19), ("63", 63)] {
        let mut more = binary.clone();
        more.splice(end + 1..end + 2, claimed.bytes());
        assert_eq!(key.open(&more).unwrap_err(), Unopened::Work(work));
    }
    binary[end + 1] = b'5';
    assert_eq!(key.open(&binary).unwrap_err(), Unopened::WrongKey);
}

#[test]
fn no_changed_or_shortened_file_opens() {
    let key = Key::identities(IDENTITY).unwrap();
    for at in 0..FOR_RECIPIENT.len() {
        let mut changed = FOR_RECIPIENT.to_vec();
        changed[at] ^= 1;
        assert!(key.open(&changed).is_err(), "a changed byte {at}");
        assert!(key.open(&FOR_RECIPIENT[..at]).is_err(), "cut after {at}");
    }
    assert_eq!(key.open(&[FOR_RECIPIENT, b"x"].concat()).unwrap_err(), Unopened::Broken);
}

#[test]
fn a_file_with_more_in_it_than_a_secrets_file_may_have_does_not_open() {
    let (key, to) = identity();
    let most = usize::try_from(MOST_BYTES).unwrap();
    let fits = seal_for(&vec![b'#'; most], std::slice::from_ref(&to)).unwrap();
    assert_eq!(key.open(&fits).unwrap().len(), most);
    let over = seal_for(&vec![b'#'; most + 1], &[to]).unwrap();
    assert_eq!(key.open(&over).unwrap_err(), Unopened::TooLarge);
}

#[test]
fn keys_are_what_they_look_like() {
    for text in ["", "# nothing\n", "AGE-SECRET-KEY-1", "ssh-ed25519 AAAA", "age1xyz"] {
        assert!(Key::identities(text.as_bytes()).is_none(), "{text}");
    }
    let (one, two) = (new_identity().0, new_identity().0);
    let both = format!("{}\n\n{}", one.as_str(), two.as_str());
    let Some(Key::Identities(found)) = Key::identities(both.as_bytes()) else { panic!("no identities") };
    assert_eq!(found.len(), 2);
    for (text, usable) in
        [("words", true), ("words\n", true), ("words\r\n", true), ("", false), ("\n", false), ("a\nb", false)]
    {
        assert_eq!(Key::passphrase(text.as_bytes()).is_some(), usable, "{text:?}");
    }
    assert!(Key::passphrase(&vec![b'a'; MOST_PASSPHRASE_BYTES + 1]).is_none());
}
