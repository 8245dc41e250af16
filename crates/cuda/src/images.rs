//! The compiled kernels that travel with the program, and which of them a GPU takes.

/// One compiled image: a cubin for `sm_*`, PTX for `compute_*`.
#[derive(Clone, Copy)]
pub struct Image {
    /// What it was compiled for.
    pub name: &'static str,
    /// What the driver loads.
    pub bytes: &'static [u8],
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({} bytes)", self.name, self.bytes.len())
    }
}

impl Image {
    /// Whether its kernels wait for their predecessors themselves, so that they may be launched early.
    pub fn can_overlap(&self) -> bool {
        matches!(self.name, "sm_90a" | "sm_100" | "sm_120")
    }

    /// Whether its kernels count on 227 KB of shared memory for a block (`LARGE_SHARED` in kernels/product_stream.cuh).
    pub fn has_large_shared(&self) -> bool {
        matches!(self.name, "sm_90a" | "sm_100")
    }
}

macro_rules! image {
    ($name:literal, $file:literal) => {
        Image { name: $name, bytes: include_bytes!(concat!("../prebuilt/", $file)) }
    };
}

/// Everything that `cargo xtask kernels` compiles.
pub const IMAGES: [Image; 8] = [
    image!("sm_80", "sm_80.cubin"),
    image!("sm_86", "sm_86.cubin"),
    image!("sm_87", "sm_87.cubin"),
    image!("sm_89", "sm_89.cubin"),
    image!("sm_90a", "sm_90a.cubin"),
    image!("sm_100", "sm_100.cubin"),
    image!("sm_120", "sm_120.cubin"),
    image!("compute_80", "compute_80.ptx"),
];

/// The image for a compute capability: the newest cubin of its generation that is not newer than it, else (or if forced) PTX; nothing
/// below 8.0. NVIDIA promises that a cubin runs on what is newer only of cards, so that 8.7, which is on one chip with its CPU, has its own.
pub fn choose((major, minor): (u32, u32), force_ptx: bool) -> Option<Image> {
    let cubin = match (major, minor) {
        (0..=7, _) => return None,
        (8, 0..=5) => "sm_80",
        (8, 7) => "sm_87",
        (8, 6 | 8) => "sm_86",
        (8, _) => "sm_89",
        (9, 0) => "sm_90a",
        (10, _) => "sm_100",
        (12, _) => "sm_120",
        _ => "compute_80",
    };
    let name = if force_ptx { "compute_80" } else { cubin };
    IMAGES.into_iter().find(|image| image.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::KERNELS;

    #[test]
    fn every_generation_finds_its_image() {
        let name = |capability, force| choose(capability, force).map(|image| image.name);
        assert_eq!(name((7, 5), false), None);
        assert_eq!(name((8, 0), false), Some("sm_80"));
        assert_eq!(name((8, 6), false), Some("sm_86"));
        assert_eq!(name((8, 7), false), Some("sm_87"));
        assert_eq!(name((8, 9), false), Some("sm_89"));
        assert_eq!(name((9, 0), false), Some("sm_90a"));
        assert_eq!(name((10, 3), false), Some("sm_100"));
        assert_eq!(name((12, 1), false), Some("sm_120"));
        assert_eq!(name((13, 0), false), Some("compute_80"));
        assert_eq!(name((9, 0), true), Some("compute_80"));
    }

    #[test]
    fn kernels_know_which_images_count_on_much_shared_memory() {
        let of = |image: &Image| image.name.trim_matches(|c: char| !c.is_ascii_digit()).parse::<u32>().unwrap() * 10;
        let large: Vec<String> =
            IMAGES.iter().filter(|i| i.has_large_shared()).map(|i| format!("__CUDA_ARCH__ == {}", of(i))).collect();
        let source = include_str!("../kernels/product_stream.cuh");
        assert!(source.contains(&format!("#if {}\nconstexpr bool LARGE_SHARED = true;", large.join(" || "))));
    }

    #[test]
    fn every_image_holds_every_kernel() {
        for image in IMAGES {
            let cubin = image.name.starts_with("sm_");
            assert_eq!(image.bytes.starts_with(b"\x7fELF"), cubin, "{}", image.name);
            for kernel in KERNELS {
                // A cubin's string table holds ".text.<kernel>", PTX its declaration.
                let mark = if cubin { format!("\0.text.{kernel}\0") } else { format!(".entry {kernel}(") };
                let found = image.bytes.windows(mark.len()).any(|w| w == mark.as_bytes());
                assert!(found, "{}: no {kernel}", image.name);
            }
        }
    }

    #[test]
    fn the_ptx_is_old_enough_for_drivers_of_cuda_12_0() {
        let ptx = IMAGES.into_iter().find(|image| image.name == "compute_80").unwrap();
        let text = std::str::from_utf8(ptx.bytes).unwrap();
        assert!(text.contains(".version 8.0\n") && text.contains(".target sm_80\n"));
    }
}
