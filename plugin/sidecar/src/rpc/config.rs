//! `node.config_get` and `node.log_level`.

use std::sync::Arc;

use outrigger_rpc_schema::{ConfigGet, ConfigReport, LogLevels, LogLevelsReport, nearest};

use super::desk::Call;
use super::serve::Serve;
use super::{Answer, Backend, Doors, Fault};
use crate::log::UnknownTarget;

impl<B: Backend> Serve<B> for ConfigGet {
    async fn serve(self, doors: Arc<Doors<B>>, _: Call) -> Answer<ConfigReport> {
        let config = doors.config().ok_or_else(Fault::starting)?;
        let Some(keys) = self.keys else { return Ok(config.clone()) };
        let known = || config.items.iter().map(|item| item.key.as_str());
        if let Some(unknown) = keys.iter().find(|key| !known().any(|known| known == *key)) {
            let meant = nearest(unknown, known()).map(|key| format!("; did you mean {key}?")).unwrap_or_default();
            return Err(Fault::invalid_parameter("keys", format!("names {unknown:?}, which is no key{meant}")));
        }
        let items = config.items.iter().filter(|item| keys.contains(&item.key)).cloned().collect();
        Ok(ConfigReport { file: config.file.clone(), items })
    }
}

impl<B: Backend> Serve<B> for LogLevels {
    async fn serve(self, doors: Arc<Doors<B>>, _: Call) -> Answer<LogLevelsReport> {
        let levels = doors.levels().ok_or_else(Fault::starting)?;
        let target = self.target.as_deref();
        let known = levels.known(target).map_err(|UnknownTarget { nearest }| {
            let meant = nearest.map(|part| format!("; did you mean {part}?")).unwrap_or_default();
            Fault::invalid_parameter("target", format!("is no part of the daemon{meant}"))
        })?;
        if let Some(level) = self.level {
            levels.set(known, level).map_err(Fault::internal)?;
        }
        Ok(levels.report())
    }
}
