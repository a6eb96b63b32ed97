//! Files of any content are refused or work.

use proptest::prelude::*;

use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn arbitrary_bytes_never_panic(
        which in 0_usize..3,
        kind in 0_usize..7,
        junk in prop::collection::vec(any::<u8>(), 0..80),
        at in 0_usize..4000,
    ) {
        // Fitting once is enough; the files are copied for each case.
        static FILES: std::sync::OnceLock<Vec<(Vec<u8>, Vec<u8>)>> = std::sync::OnceLock::new();
        let files = FILES.get_or_init(|| {
            let read = |config: &QuantizerConfig| {
                let (dir, _) = saved(config);
                let path = dir.path().join("quantizer");
                (fs::read(path.join("config.json")).unwrap(), fs::read(path.join("model.safetensors")).unwrap())
            };
            configs().iter().map(read).collect()
        });
        let (config, weights) = &files[kind % files.len()];
        let (mut config, mut weights) = (config.clone(), weights.clone());
        match which {
            0 => config = junk.clone(),
            1 => {
                let at = at % config.len();
                let end = (at + junk.len()).min(config.len());
                config.splice(at..end, junk.iter().copied());
            }
            _ => {
                let at = at % weights.len();
                let end = (at + junk.len()).min(weights.len());
                weights.splice(at..end, junk.iter().copied());
                let mut json: Value = serde_json::from_slice(&config).unwrap();
                json["weights_crc32"] = crc32fast::hash(&weights).into();
                config = json.to_string().into_bytes();
            }
        }
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("config.json"), &config).unwrap();
        fs::write(dir.path().join("model.safetensors"), &weights).unwrap();
        if let Ok(model) = AnyQuantizer::load(dir.path(), &Device::Cpu) {
            // Nothing but the configuration says how wide the rows of random IDs are.
            prop_assume!(model.dim() < 1 << 20);
            // What loads must also work.
            prop_assert!(model.encode_array(Array2::zeros((2, model.dim())).view(), 2).is_ok());
        }
    }
}
