//! Machines that an image is for: `OS/ARCHITECTURE[/VARIANT]`, in the words of the Go language.

use oci_spec::image::{Arch, Os};
use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

/// A machine that an image is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetPlatform {
    /// Its system: `linux`.
    pub os: String,
    /// Its processor: `amd64`.
    pub architecture: String,
    /// What its processor is able to do, beyond the least: `v7`.
    pub variant: Option<String>,
}

impl TargetPlatform {
    /// This machine.
    pub fn here() -> TargetPlatform {
        TargetPlatform::new("linux", std::env::consts::ARCH, None)
    }

    /// The platform with these words, which may be a kernel's or a compiler's.
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> TargetPlatform {
        let architecture = architecture.to_lowercase();
        let (architecture, implied) = match architecture.as_str() {
            "x86_64" | "x86-64" => ("amd64", None),
            "aarch64" => ("arm64", None),
            "armhf" => ("arm", Some("v7")),
            "armel" => ("arm", Some("v6")),
            "x86" | "i386" | "i686" => ("386", None),
            "powerpc64" => ("ppc64le", None),
            "loongarch64" => ("loong64", None),
            other => (other, None),
        };
        let variant = variant.filter(|variant| !variant.is_empty()).or(implied);
        let variant = variant.map(|variant| match variant.starts_with('v') {
            true => variant.to_owned(),
            false => format!("v{variant}"),
        });
        TargetPlatform {
            os: os.to_lowercase(),
            architecture: architecture.into(),
            variant,
        }
    }

    /// The platform of an index or a configuration.
    pub fn of(os: &Os, architecture: &Arch, variant: Option<&str>) -> TargetPlatform {
        TargetPlatform::new(&os.to_string(), &architecture.to_string(), variant)
    }

    /// How well an image for this platform serves a machine that is `wanted`: the more, the better; `None`: not at all.
    ///
    /// A processor does what its older variants do, and not the other way round.
    pub fn serves(&self, wanted: &TargetPlatform) -> Option<u32> {
        let same = self.os == wanted.os && self.architecture == wanted.architecture;
        let (ours, theirs) = (self.level(), wanted.level());
        (same && ours <= theirs).then_some(ours)
    }

    /// The variant as a number. Nothing means what is usual: arm is v7, arm64 is v8, amd64 is v1.
    fn level(&self) -> u32 {
        let usual = match self.architecture.as_str() {
            "arm" => 7,
            "arm64" => 8,
            _ => 1,
        };
        let given = self.variant.as_deref().and_then(|variant| {
            let number = variant.strip_prefix('v')?;
            // arm64 has v8.1 and so on: a part of a level counts as one.
            let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
            Some((whole.parse::<u32>().ok()?, part.parse::<u32>().ok()?))
        });
        match (given, &self.variant) {
            (Some((whole, part)), _) if whole < 1000 && part < 100 => whole * 100 + part,
            (None, None) => usual * 100,
            // A variant that nobody knows: only for who asks for it.
            _ => u32::MAX,
        }
    }
}

impl Display for TargetPlatform {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

impl FromStr for TargetPlatform {
    type Err = String;

    fn from_str(text: &str) -> Result<TargetPlatform, String> {
        let parts: Vec<&str> = text.split('/').collect();
        let whole = parts.iter().all(|part| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
            !part.is_empty() && part.bytes().all(plain)
        });
        match parts[..] {
            [architecture] if whole => Ok(TargetPlatform::new("linux", architecture, None)),
            [os, architecture] if whole => Ok(TargetPlatform::new(os, architecture, None)),
            [os, architecture, variant] if whole => {
                Ok(TargetPlatform::new(os, architecture, Some(variant)))
            }
            _ => Err(
                "a platform is OS/ARCHITECTURE or OS/ARCHITECTURE/VARIANT, as linux/arm64".into(),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_variants_serve_newer_machines() {
        let serves = |image: &str, machine: &str| {
            let [image, machine] =
                [image, machine].map(|text| text.parse::<TargetPlatform>().unwrap());
            image.serves(&machine)
        };
        assert!(serves("linux/arm/v7", "linux/arm/v7") > serves("linux/arm/v6", "linux/arm/v7"));
        assert!(serves("linux/arm/v6", "linux/arm/v7") > serves("linux/arm/v5", "linux/arm/v7"));
        for (image, machine) in [
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm64", "linux/arm64/v8"),
            ("linux/arm64/v8", "linux/aarch64"),
            ("x86_64", "linux/amd64"),
            ("linux/amd64", "linux/amd64/v3"),
            ("linux/amd64/v2", "linux/amd64/v3"),
        ] {
            assert!(serves(image, machine).is_some(), "{image} {machine}");
        }
        for (image, machine) in [
            ("linux/arm/v7", "linux/arm/v6"),
            ("linux/amd64/v3", "linux/amd64"),
            ("windows/amd64", "linux/amd64"),
            ("linux/arm64", "linux/arm"),
            ("linux/386", "linux/amd64"),
            ("linux/amd64/weird", "linux/amd64"),
        ] {
            assert!(serves(image, machine).is_none(), "{image} {machine}");
        }
        for wrong in ["", "/", "linux/", "a/b/c/d", "linux/arm 64"] {
            assert!(wrong.parse::<TargetPlatform>().is_err(), "{wrong}");
        }
    }
}
