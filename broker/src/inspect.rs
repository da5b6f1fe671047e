//! Looks at requests as a connection does, before anything is done with them. For fuzzing and for bytes that were captured.

use std::sync::Arc;

use bytes::Bytes;

use crate::api::{APIS, Request};
use crate::security::Caller;
use crate::server::ServerSettings;
use crate::wire::Reply;

/// Reads requests by a server's limits.
pub struct Inspector {
    caller: Arc<Caller>,
    settings: ServerSettings,
}

/// A request whose header was read and whose body passed the check of its API's shape.
#[derive(Debug)]
pub struct Inspected {
    pub api_key: i16,
    pub api_version: i16,
    /// What the codec gets.
    pub body: Bytes,
}

impl Inspector {
    pub fn new(settings: ServerSettings) -> Self {
        Self { caller: Arc::new(Caller::local()), settings }
    }

    /// Reads a frame, without its length. `None` is a version of ApiVersions that is answered with what there is.
    ///
    /// # Errors
    ///
    /// What would end the connection, as a sentence.
    pub fn request(&self, frame: Bytes) -> Result<Option<Inspected>, String> {
        match Request::read(frame, &self.caller, &self.settings).map_err(|e| e.to_string())? {
            Ok(request) => {
                Ok(Some(Inspected { api_key: request.head.key, api_version: request.head.version, body: request.body }))
            }
            Err(Reply::Close(why)) => Err(why),
            Err(_) => Ok(None),
        }
    }
}

/// Frames, without their lengths, of every API in every version that is answered, with any values in their fields: other
/// ones by `seed`.
pub fn samples(seed: &mut u64) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for api in APIS {
        for version in api.min..=api.max {
            let mut frame = [api.key.to_be_bytes(), version.to_be_bytes()].concat();
            // Correlation, no client id, and no tagged fields where the header has them.
            frame.extend([0, 0, 0, 1, 0xff, 0xff]);
            if version >= api.shape.flexible {
                frame.push(0);
            }
            frame.extend(api.shape.sample(version, seed));
            frames.push(frame);
        }
    }
    frames
}
