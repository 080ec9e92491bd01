use proptest::prelude::*;

use super::*;

const KEK: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
const LOCATION: &str = "zones/zone-1/providers/prov-1/secretConfig";
const PLAIN: &[u8] = br#"{"api_key":"sk-test"}"#;
const ENVELOPE: &str = "435353314773d12e2371bb93000102030405060708090a0b2cf9ac515bcd66222e83441684b3a3168ea51a29a3a08859c66a1c49dc04fbde6950cb0d38fe8b8a95ad49a29b3b6a7b6465666768696a6b6c6d6e6f4f33dabaf1fa1d3782fc2f5d81e2f5e715b5e616e2a5fc5b8f4c992f9bd069922581b97b5e";

fn kek() -> [u8; 32] {
    hex::decode(KEK).unwrap().try_into().unwrap()
}

/// `count` bytes, each one more than the one before.
fn run<const N: usize>(first: u8) -> [u8; N] {
    std::array::from_fn(|at| first.saturating_add(u8::try_from(at).unwrap()))
}

#[test]
fn the_published_vector_seals_and_opens() {
    assert_eq!(hex::encode(key_id(&kek())), "4773d12e2371bb93");
    let fresh = Fresh { data_key: Zeroizing::new(run(0)), key_nonce: run(0), value_nonce: run(0x64) };
    let sealed = seal_with(&kek(), LOCATION, PLAIN, &fresh).unwrap();
    assert_eq!(hex::encode(&sealed), ENVELOPE);
    assert_eq!(open(&kek(), LOCATION, &sealed).unwrap().as_slice(), PLAIN);
}

#[test]
fn another_key_is_told_apart_from_damage() {
    let sealed = hex::decode(ENVELOPE).unwrap();
    assert_eq!(open(&[7; 32], LOCATION, &sealed), Err(OpenError::OtherKey));
    assert_eq!(open(&kek(), "zones/zone-2/providers/prov-1/secretConfig", &sealed), Err(OpenError::Damaged));
    assert_eq!(open(&kek(), LOCATION, b"CSS2"), Err(OpenError::NotAnEnvelope));
    assert_eq!(open(&kek(), LOCATION, &[]), Err(OpenError::NotAnEnvelope));
}

#[test]
fn every_changed_byte_and_every_cut_is_refused() {
    let sealed = hex::decode(ENVELOPE).unwrap();
    for at in 0..sealed.len() {
        let mut changed = sealed.clone();
        changed[at] ^= 1;
        open(&kek(), LOCATION, &changed).unwrap_err();
        open(&kek(), LOCATION, &sealed[..at]).unwrap_err();
    }
    let longer = [&sealed[..], &[0]].concat();
    assert_eq!(open(&kek(), LOCATION, &longer), Err(OpenError::Damaged));
}

#[test]
fn the_same_value_never_seals_to_the_same_bytes() {
    let one = seal(&kek(), LOCATION, PLAIN).unwrap();
    let two = seal(&kek(), LOCATION, PLAIN).unwrap();
    assert_ne!(one[12..24], two[12..24]);
    assert_ne!(one[72..84], two[72..84]);
    assert_ne!(one[84..], two[84..]);
}

proptest! {

    #[test]
    fn what_is_sealed_opens_at_its_own_place_only(
        kek in any::<[u8; 32]>(), place in ".{0,40}", other in ".{0,40}", plain in any::<Vec<u8>>()
    ) {
        let sealed = seal(&kek, &place, &plain).unwrap();
        prop_assert_eq!(sealed.len(), plain.len().saturating_add(100));
        prop_assert_eq!(open(&kek, &place, &sealed).unwrap().to_vec(), plain);
        if place != other {
            prop_assert_eq!(open(&kek, &other, &sealed), Err(OpenError::Damaged));
        }
    }

    #[test]
    fn opening_any_bytes_does_not_panic(bytes in any::<Vec<u8>>()) {
        prop_assert!(open(&[1; 32], LOCATION, &bytes).is_err());
    }
}
