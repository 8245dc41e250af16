//! Which device.

use crate::Error;

/// Something that can be recorded from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// What the system calls it. Names differ.
    pub name: String,
    /// What people call it.
    pub description: String,
    /// Whether it is what is recorded from if nobody says otherwise.
    pub is_default: bool,
    /// Whether it gives what this computer plays, instead of what a microphone hears.
    pub is_monitor: bool,
}

/// The device that somebody means: by its name, its number counted from 1, or a part of its description; the default one if none. A
/// monitor has the name of what it monitors in its description: it is meant only where no microphone fits.
pub(crate) fn choose<'a>(devices: &'a [Device], wanted: Option<&str>) -> Result<&'a Device, Error> {
    let Some(wanted) = wanted else {
        return devices.iter().find(|device| device.is_default).or(devices.first()).ok_or(Error::NoDevice);
    };
    if let Some(device) = devices.iter().find(|device| device.name == wanted) {
        return Ok(device);
    }
    if let Some(device) = wanted.parse().ok().and_then(|number: usize| devices.get(number.checked_sub(1)?)) {
        return Ok(device);
    }
    let part = wanted.to_lowercase();
    let fitting = |monitors: bool| -> Vec<&Device> {
        let fits =
            |device: &&Device| device.is_monitor == monitors && device.description.to_lowercase().contains(&part);
        devices.iter().filter(fits).collect()
    };
    let mut fitting = [fitting(false), fitting(true)].into_iter().filter(|devices| !devices.is_empty());
    match fitting.next().as_deref() {
        Some([device]) => Ok(device),
        Some(several) => Err(Error::Ambiguous { wanted: wanted.to_owned(), fitting: names(several.iter().copied()) }),
        None => Err(Error::NoSuchDevice { wanted: wanted.to_owned(), there: names(devices) }),
    }
}

fn names<'a>(devices: impl IntoIterator<Item = &'a Device>) -> String {
    let names: Vec<&str> = devices.into_iter().map(|device| device.name.as_str()).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str, description: &str, is_monitor: bool) -> Device {
        Device { name: name.into(), description: description.into(), is_default: false, is_monitor }
    }

    fn devices() -> [Device; 4] {
        [
            device("out.monitor", "Monitor of Built-in Audio", true),
            device("in.pci", "Built-in Audio Analog Stereo", false),
            device("in.usb", "Blue Yeti", false),
            device("3", "Blue Snowball", false),
        ]
    }

    fn chosen(wanted: &str) -> String {
        choose(&devices(), Some(wanted)).unwrap().name.clone()
    }

    #[test]
    fn a_name_goes_before_a_number_and_a_number_before_a_description() {
        assert_eq!(chosen("in.usb"), "in.usb");
        assert_eq!(chosen("1"), "out.monitor");
        assert_eq!(chosen("3"), "3");
        assert_eq!(chosen("yeti"), "in.usb");
    }

    #[test]
    fn without_a_wish_it_is_the_default_or_else_the_first() {
        let mut all = devices();
        assert_eq!(choose(&all, None).unwrap().name, "out.monitor");
        all[2].is_default = true;
        assert_eq!(choose(&all, None).unwrap().name, "in.usb");
        assert!(matches!(choose(&[], None), Err(Error::NoDevice)));
    }

    #[test]
    fn a_monitor_is_meant_only_where_no_microphone_fits() {
        assert_eq!(chosen("built-in"), "in.pci");
        assert_eq!(chosen("monitor"), "out.monitor");
    }

    #[test]
    fn what_fits_several_or_none_is_refused_with_their_names() {
        let ambiguous = choose(&devices(), Some("blue")).unwrap_err();
        assert_eq!(ambiguous.to_string(), "\"blue\" fits several devices: in.usb, 3");
        for wanted in ["red", "0", "5"] {
            let none = choose(&devices(), Some(wanted)).unwrap_err().to_string();
            assert_eq!(
                none,
                format!("there is no device {wanted:?}; choose one of these: out.monitor, in.pci, in.usb, 3")
            );
        }
    }
}
