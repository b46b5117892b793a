//! fio: one sequential write and one `fdatasync` after the other.

use anyhow::{Context, ensure};
use tokio::process::Command;

use crate::{
    candidate::{Candidate, Place},
    load::Load,
    measured::Measured,
};

/// As many bytes as the load has, to a new file, with fio's own defaults for everything else.
#[derive(Clone, Copy, Debug)]
pub struct Fio {
    /// Bytes of a write.
    pub write_bytes: usize,
}

#[tonic::async_trait(?Send)]
impl Candidate for Fio {
    async fn run(&self, load: &Load, place: Place<'_>) -> anyhow::Result<Measured> {
        let output = Command::new("fio")
            .args(["--name=limit", "--rw=write", "--fdatasync=1", "--output-format=json"])
            .arg(format!("--bs={}", self.write_bytes))
            .arg(format!("--size={}", load.payload_bytes()))
            .arg("--directory")
            .arg(place.run)
            .output()
            .await
            .context("fio cannot be run; it is a package of that name (apt-get install fio)")?;
        ensure!(output.status.success(), "fio failed: {}", String::from_utf8_lossy(&output.stderr));
        parse(&output.stdout, load)
    }
}

/// fio may say something before its JSON.
fn parse(stdout: &[u8], load: &Load) -> anyhow::Result<Measured> {
    let start = stdout.iter().position(|&byte| byte == b'{').context("fio wrote no JSON")?;
    let report: serde_json::Value = serde_json::from_slice(&stdout[start..]).context("fio's JSON cannot be read")?;
    let write = &report["jobs"][0]["write"];
    let bytes = write["io_bytes"].as_u64().context("fio tells no io_bytes")?;
    let millis = write["runtime"].as_f64().context("fio tells no runtime")?;
    // Its clock starts before the first write and stops after the last sync.
    ensure!(bytes > 0 && millis > 0.0, "fio wrote {bytes} bytes in {millis} ms");
    let records = bytes / load.record_bytes as u64;
    Ok(Measured { records, payload_bytes: bytes, seconds: millis / 1e3, disk_bytes: Some(bytes), ..Measured::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fio_says_is_read() {
        let load = Load { record_bytes: 1_000, partitions: 1, records: 1, unacknowledged: 1, rate: None };
        let text = br#"note: something
            {"jobs":[{"write":{"io_bytes":2000000,"runtime":500}}]}"#;
        let measured = parse(text, &load).expect("JSON");
        assert_eq!((measured.records, measured.payload_bytes, measured.seconds), (2_000, 2_000_000, 0.5));
        assert!(parse(b"{}", &load).is_err());
        assert!(parse(b"no", &load).is_err());
    }
}
