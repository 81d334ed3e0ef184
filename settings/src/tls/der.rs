//! The parts of an X.509 certificate that [`super::verify`] looks at itself.

use std::fmt;

/// A certificate, read without judging it. Slices are of the certificate's DER bytes.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Certificate<'a> {
    /// The signed part.
    pub(super) signed: &'a [u8],
    /// Algorithm identifier of the signature, without its outer tag and length.
    pub(super) signature_algorithm: &'a [u8],
    /// The signature.
    pub(super) signature: &'a [u8],
    /// 1, 2 or 3.
    pub(super) version: u8,
    /// Name of the issuer, whole element.
    pub(super) issuer: &'a [u8],
    /// Name of the subject, whole element.
    pub(super) subject: &'a [u8],
    /// Validity: UTCTime or GeneralizedTime as Unix seconds.
    pub(super) not_before: i64,
    /// See [`not_before`](Self::not_before).
    pub(super) not_after: i64,
    /// The public key with its algorithm (SubjectPublicKeyInfo), whole element.
    pub(super) public_key_info: &'a [u8],
    /// Algorithm identifier of the public key, without its outer tag and length.
    pub(super) public_key_algorithm: &'a [u8],
    /// The public key.
    pub(super) public_key: &'a [u8],
    /// The extensions, inside of their outer sequence; empty if there are none.
    pub(super) extensions: &'a [u8],
}

/// Bytes that are no certificate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct BadDer;

impl fmt::Display for BadDer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an X.509 certificate")
    }
}

/// An extension of a certificate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Extension<'a> {
    /// Its object identifier.
    pub(super) id: &'a [u8],
    /// Whether it must be understood.
    pub(super) critical: bool,
    /// Its value, DER.
    pub(super) value: &'a [u8],
}

const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OBJECT_ID: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;

/// Reads elements one after another.
#[derive(Clone, Copy)]
struct Der<'a> {
    rest: &'a [u8],
}

impl<'a> Der<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn next_tag(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// The next element: tag, content, and the whole of it.
    fn element(&mut self) -> Result<(u8, &'a [u8], &'a [u8]), BadDer> {
        let [tag, first, ..] = *self.rest else {
            return Err(BadDer);
        };
        let (head, length) = if first < 0x80 {
            (2, usize::from(first))
        } else {
            let count = usize::from(first & 0x7f);
            let bytes = self.rest.get(2..2 + count).ok_or(BadDer)?;
            if !(1..=3).contains(&count) {
                return Err(BadDer);
            }
            let length = bytes
                .iter()
                .fold(0, |length, byte| length << 8 | usize::from(*byte));
            (2 + count, length)
        };
        let whole = self.rest.get(..head + length).ok_or(BadDer)?;
        self.rest = &self.rest[head + length..];
        Ok((tag, &whole[head..], whole))
    }

    fn expect(&mut self, wanted: u8) -> Result<&'a [u8], BadDer> {
        let (tag, content, _) = self.element()?;
        if tag == wanted {
            Ok(content)
        } else {
            Err(BadDer)
        }
    }

    fn whole(&mut self, wanted: u8) -> Result<&'a [u8], BadDer> {
        let (tag, _, whole) = self.element()?;
        if tag == wanted {
            Ok(whole)
        } else {
            Err(BadDer)
        }
    }

    /// A bit string of whole bytes.
    fn bits(&mut self) -> Result<&'a [u8], BadDer> {
        match self.expect(BIT_STRING)?.split_first() {
            Some((0, bits)) => Ok(bits),
            _ => Err(BadDer),
        }
    }

    fn time(&mut self) -> Result<i64, BadDer> {
        let (tag, content, _) = self.element()?;
        let text = std::str::from_utf8(content).map_err(|_| BadDer)?;
        let digits = text.strip_suffix('Z').ok_or(BadDer)?;
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(BadDer);
        }
        let (year, rest) = match (tag, digits.len()) {
            (UTC_TIME, 12) => {
                let year: i64 = digits[..2].parse().map_err(|_| BadDer)?;
                (
                    if year < 50 { 2000 + year } else { 1900 + year },
                    &digits[2..],
                )
            }
            (GENERALIZED_TIME, 14) => (digits[..4].parse().map_err(|_| BadDer)?, &digits[4..]),
            _ => return Err(BadDer),
        };
        let part = |index: usize| {
            rest[index * 2..index * 2 + 2]
                .parse::<i64>()
                .map_err(|_| BadDer)
        };
        let (month, day) = (part(0)?, part(1)?);
        let seconds = part(2)? * 3600 + part(3)? * 60 + part(4)?;
        Ok(days_since_1970(year, month, day) * 86_400 + seconds)
    }
}

/// Days from 1970-01-01 in the Gregorian calendar, with years that begin in March.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    // 719,468 days lie between 0000-03-01 and 1970-01-01.
    era * 146_097 + day_of_era - 719_468
}

impl<'a> Certificate<'a> {
    pub(super) fn parse(der: &'a [u8]) -> Result<Self, BadDer> {
        let mut outer = Der::new(der);
        let mut certificate = Der::new(outer.expect(SEQUENCE)?);
        if !outer.rest.is_empty() {
            return Err(BadDer);
        }
        let signed = certificate.whole(SEQUENCE)?;
        let signature_algorithm = certificate.expect(SEQUENCE)?;
        let signature = certificate.bits()?;

        let mut fields = Der::new(Der::new(signed).expect(SEQUENCE)?);
        let version = match fields.next_tag() {
            Some(VERSION) => match Der::new(fields.expect(VERSION)?).expect(INTEGER)? {
                [version @ 0..=2] => version + 1,
                _ => return Err(BadDer),
            },
            _ => 1,
        };
        fields.expect(INTEGER)?;
        // The algorithm stands once inside and once outside of the signed part; they must agree.
        if fields.expect(SEQUENCE)? != signature_algorithm {
            return Err(BadDer);
        }
        let issuer = fields.whole(SEQUENCE)?;
        let mut validity = Der::new(fields.expect(SEQUENCE)?);
        let not_before = validity.time()?;
        let not_after = validity.time()?;
        let subject = fields.whole(SEQUENCE)?;
        let public_key_info = fields.whole(SEQUENCE)?;
        let mut key = Der::new(Der::new(public_key_info).expect(SEQUENCE)?);
        let public_key_algorithm = key.expect(SEQUENCE)?;
        let public_key = key.bits()?;
        let mut extensions: &[u8] = &[];
        while fields.next_tag().is_some() {
            let (tag, content, _) = fields.element()?;
            if tag == EXTENSIONS {
                extensions = Der::new(content).expect(SEQUENCE)?;
            }
        }
        Ok(Self {
            signed,
            signature_algorithm,
            signature,
            version,
            issuer,
            subject,
            not_before,
            not_after,
            public_key_info,
            public_key_algorithm,
            public_key,
            extensions,
        })
    }

    /// The extensions in order.
    pub(super) fn extensions(&self) -> Result<Vec<Extension<'a>>, BadDer> {
        let mut list = Der::new(self.extensions);
        let mut extensions = Vec::new();
        while list.next_tag().is_some() {
            let mut fields = Der::new(list.expect(SEQUENCE)?);
            let id = fields.expect(OBJECT_ID)?;
            let critical = match fields.next_tag() {
                Some(BOOLEAN) => fields.expect(BOOLEAN)? != [0],
                _ => false,
            };
            let value = fields.expect(OCTET_STRING)?;
            extensions.push(Extension {
                id,
                critical,
                value,
            });
        }
        Ok(extensions)
    }
}

impl fmt::Debug for Certificate<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// The first byte of a key-usage extension's bits; `0x80` is digitalSignature.
pub(super) fn first_key_usage(value: &[u8]) -> Option<u8> {
    match Der::new(value).expect(BIT_STRING).ok()? {
        [_, first, ..] => Some(*first),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_counted_from_1970() {
        assert_eq!(days_since_1970(1970, 1, 1), 0);
        assert_eq!(days_since_1970(2000, 3, 1), 11_017);
        assert_eq!(days_since_1970(2024, 2, 29), 19_782);
        assert_eq!(days_since_1970(1969, 12, 31), -1);
    }

    #[test]
    fn times_are_read_in_both_forms() {
        let read = |tag: u8, text: &str| {
            let mut bytes = vec![tag, text.len() as u8];
            bytes.extend(text.bytes());
            Der::new(&bytes).time()
        };
        assert_eq!(read(UTC_TIME, "700101000001Z"), Ok(1));
        assert_eq!(read(GENERALIZED_TIME, "20500101000000Z"), Ok(2_524_608_000));
        assert_eq!(read(UTC_TIME, "7001010000Z"), Err(BadDer));
        assert_eq!(read(UTC_TIME, "70010100000éZ"), Err(BadDer));
    }

    #[test]
    fn truncated_and_oversized_elements_are_refused() {
        for bytes in [
            &[][..],
            &[0x30],
            &[0x30, 5, 1],
            &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff],
            &[0x30, 0x80],
        ] {
            assert_eq!(Certificate::parse(bytes), Err(BadDer), "{bytes:?}");
        }
    }
}
