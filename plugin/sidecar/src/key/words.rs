//! Words as somebody typed them, and what is wrong with them. No fault says a word that was given: it may be right.

use bip39::{Language, Mnemonic};
use outrigger_rpc_schema::nearest;
use zeroize::Zeroizing;

/// How many words BIP 39 knows of.
const COUNTS: [usize; 5] = [12, 15, 18, 21, 24];

/// Why some words are no seed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WordsFault {
    /// Too few, too many, or a number between.
    #[error(
        "{0} words were given, and there are 12, 15, 18, 21 or 24 of them: look whether one is missing or there twice"
    )]
    Count(usize),
    /// A word that no list of BIP 39's in English has.
    #[error("word {position} is none of BIP 39's English words{}", nearest.map(|word| format!("; did you mean {word}?")).unwrap_or_default())]
    Unknown {
        /// Which one it is, counted from 1.
        position: usize,
        /// The one that is spelled most alike.
        nearest: Option<&'static str>,
    },
    /// All words are in the list, and they do not belong together.
    #[error(
        "words 1 to {0} are all words of BIP 39 and do not belong together: the checksum in word {0} is of others. One was written \
         down wrong, or two have changed places: compare each with the paper"
    )]
    Checksum(usize),
}

/// The mnemonic that a text holds. Capitals and space between words say nothing.
pub(super) fn mnemonic_of(text: &str) -> Result<Mnemonic, WordsFault> {
    let text = Zeroizing::new(text.to_lowercase());
    let words = Zeroizing::new(text.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
    for (index, word) in words.iter().enumerate() {
        if Language::English.find_word(word).is_none() {
            let nearest = nearest(word, Language::English.word_list().iter().copied());
            return Err(WordsFault::Unknown { position: index.saturating_add(1), nearest });
        }
    }
    if !COUNTS.contains(&words.len()) {
        return Err(WordsFault::Count(words.len()));
    }
    let joined = Zeroizing::new(words.join(" "));
    Mnemonic::parse_in_normalized(Language::English, &joined).map_err(|_| WordsFault::Checksum(words.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> WordsFault {
        mnemonic_of(text).unwrap_err()
    }

    #[test]
    fn words_are_read_as_people_type_them() {
        let spaced = format!("  {}\nABOUT \t", "Abandon ".repeat(11));
        assert_eq!(mnemonic_of(&spaced).unwrap().to_entropy(), [0; 16]);
        for bytes in [16, 20, 24, 28, 32] {
            let made = Mnemonic::from_entropy(&vec![7; bytes]).unwrap();
            assert_eq!(mnemonic_of(&made.to_string()).unwrap(), made);
        }
    }

    #[test]
    fn the_words_of_bip_39s_own_vectors_give_its_seeds() {
        let fixture: serde_json::Value = serde_json::from_str(include_str!("../../tests/fixtures/bip39.json")).unwrap();
        let vectors = fixture["vectors"].as_array().unwrap();
        assert_eq!(vectors.len(), 24);
        for vector in vectors {
            let read = mnemonic_of(vector["words"].as_str().unwrap()).unwrap();
            assert_eq!(hex::encode(read.to_entropy()), vector["entropy"]);
            // The daemon has no passphrase; that of the vectors shows that nothing else differs.
            assert_eq!(hex::encode(read.to_seed_normalized("TREZOR")), vector["seed"]);
        }
    }

    #[test]
    fn what_is_wrong_is_told_by_position_and_without_a_word_that_was_given() {
        assert_eq!(fault(""), WordsFault::Count(0));
        assert_eq!(fault(&"abandon ".repeat(13)), WordsFault::Count(13));
        assert_eq!(fault(&"abandon ".repeat(25)), WordsFault::Count(25));
        let text = format!("{} zoso {}", "zoo ".repeat(6), "zoo ".repeat(5));
        assert_eq!(fault(&text), WordsFault::Unknown { position: 7, nearest: Some("zoo") });
        assert!(!fault(&text).to_string().contains("zoso"));
        let strange = format!("{} {}", "zoo ".repeat(11), "q".repeat(20));
        assert_eq!(fault(&strange), WordsFault::Unknown { position: 12, nearest: None });
        assert_eq!(fault(&"abandon ".repeat(12)), WordsFault::Checksum(12));
        // Two have changed places.
        let words: Vec<_> = Mnemonic::from_entropy(&[1; 32]).unwrap().words().collect();
        let mut swapped = words.clone();
        swapped.swap(0, 22);
        let text = fault(&swapped.join(" ")).to_string();
        assert!(text.starts_with("words 1 to 24 are all words of BIP 39") && text.contains("in word 24"), "{text}");
        assert!(!words.iter().filter(|word| word.len() > 5).any(|word| text.contains(word)), "{text}");
    }
}
