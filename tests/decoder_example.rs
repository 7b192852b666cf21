//! `examples/decoder.rs` as its users run it: pixels of real images, no pixels of broken ones, and nothing for a worker that
//! was taken over. `cargo test` builds the examples before it runs this.

#[cfg(test)]
mod support;

#[cfg(test)]
mod tests {
    use std::env;
    use std::fs;
    use std::io::Cursor;
    use std::path::Path;
    use std::process::{Command, Output};

    use image::{ImageFormat, Rgb, RgbImage, Rgba, RgbaImage, load_from_memory};

    use super::support::{Scratch, say};

    /// Tests lie in `target/PROFILE/deps`, examples in `target/PROFILE/examples`.
    fn decoder(image: &Path, args: &[&str]) -> Output {
        let own = env::current_exe().expect("current_exe");
        let path = own.parent().and_then(Path::parent).expect("a target directory").join("examples/decoder");
        let built = path.is_file();
        assert!(built, "the example is not built: run all of `cargo test`, or `cargo build --examples`");
        Command::new(path).arg(image).args(args).output().expect("it starts")
    }

    fn text(output: &Output) -> String {
        String::from_utf8_lossy(&[output.stdout.clone(), output.stderr.clone()].concat()).into_owned()
    }

    fn png(width: u32, height: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        let picture = RgbaImage::from_fn(width, height, |x, y| {
            Rgba([x, y, x * y, x + y].map(|value| value.to_le_bytes()[0]))
        });
        picture.write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png).expect("a PNG");
        bytes
    }

    /// CRC-32 of PNG (ISO 3309).
    fn crc(bytes: &[u8]) -> u32 {
        let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
    }

    /// The same image with another size in its header, and a sum that fits.
    fn claiming(mut png: Vec<u8>, width: u32, height: u32) -> Vec<u8> {
        png[16..20].copy_from_slice(&width.to_be_bytes());
        png[20..24].copy_from_slice(&height.to_be_bytes());
        let sum = crc(&png[12..29]);
        png[29..33].copy_from_slice(&sum.to_be_bytes());
        png
    }

    /// Whether it can run at all: TOMOYO wants a path of what is executed (before Linux 6.12).
    fn runs(test: &str, output: &Output) -> bool {
        let wants_path = text(output).contains("TOMOYO");
        if wants_path {
            say(&format!("SKIPPED {test}: TOMOYO of this kernel executes no descriptor in an empty root"));
        }
        !wants_path
    }

    #[test]
    fn the_pixels_are_those_of_a_decoder_without_a_fence() {
        let scratch = Scratch::new();
        let (image, out) = (scratch.at("image.png"), scratch.at("image.rgba"));
        let grey = RgbImage::from_fn(64, 3, |x, y| Rgb([x, y, x ^ y].map(|value| value.to_le_bytes()[0])));
        let mut rgb = Vec::new();
        grey.write_to(&mut Cursor::new(&mut rgb), ImageFormat::Png).expect("a PNG");
        for bytes in [png(1, 1), png(300, 200), png(1, 4096), png(1920, 1080), rgb] {
            fs::write(&image, &bytes).expect("a file");
            let output = decoder(&image, &["--out", out.to_str().expect("text")]);
            if !runs("the_pixels_are_those_of_a_decoder_without_a_fence", &output) {
                return;
            }
            assert!(output.status.success(), "{}", text(&output));
            let wanted = load_from_memory(&bytes).expect("an image").into_rgba8();
            assert!(fs::read(&out).expect("pixels") == wanted.into_raw(), "{}", text(&output));
            fs::remove_file(&out).expect("removed");
        }
    }

    #[test]
    fn a_broken_image_gives_no_pixels() {
        let scratch = Scratch::new();
        let (image, out) = (scratch.at("image.png"), scratch.at("image.rgba"));
        let whole = png(50, 50);
        let mut flipped = whole.clone();
        flipped[60] ^= 0xff;
        let huge = claiming(whole.clone(), u32::MAX >> 1, u32::MAX >> 1);
        let wide = claiming(whole.clone(), 5000, 50);
        let long = claiming(whole.clone(), 50, 4000);
        for bytes in [&whole[..whole.len() / 2], b"", b"no image", &flipped, &huge, &wide, &long] {
            fs::write(&image, bytes).expect("a file");
            let output = decoder(&image, &["--out", out.to_str().expect("text")]);
            if !runs("a_broken_image_gives_no_pixels", &output) {
                return;
            }
            assert_eq!(output.status.code(), Some(1), "{}", text(&output));
            assert!(text(&output).contains("no pixels"), "{}", text(&output));
            fs::metadata(&out).expect_err("nothing is written");
        }
    }

    #[test]
    fn a_worker_that_was_taken_over_is_refused_everything_by_name() {
        let scratch = Scratch::new();
        let (image, out) = (scratch.at("image.png"), scratch.at("image.rgba"));
        fs::write(&image, png(5, 5)).expect("a file");
        let output = decoder(&image, &["--hostile", "--out", out.to_str().expect("text")]);
        if !runs("a_worker_that_was_taken_over_is_refused_everything_by_name", &output) {
            return;
        }
        let said = text(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        for line in [
            "worker: open /etc/passwd: refused, ENOSYS",
            "worker: connect 127.0.0.1:80: refused, ENOSYS",
            "worker: fork: refused, EPERM",
            "a side of \"4294967295\", 1 to 4096 can be",
        ] {
            assert!(said.contains(line), "no {line:?} in {said}");
        }
        fs::metadata(&out).expect_err("nothing is written");
    }
}
