//! The login, step by step (PROTOCOL.md section 3). `login` has the hellos and the proofs; here is who says what when.

use super::{Compression, Config, Phase, Session, ZSTD};
use crate::error::{ProtocolError, UsageError};
use crate::event::Event;
use crate::frame::{Frame, PREFACE, one_line};
use crate::login::{self, BAD_CREDENTIALS, Bytes32, Hello, Party, Role};
use crate::varint;
use crate::window;

impl Session {
    /// At the master, when asked: lets the worker in if it knows `secret`. False: it does not, and was refused. An empty
    /// secret is nobody's: it is what to give for an unknown name, which then takes the same work and the same words.
    pub fn admit(&mut self, secret: &[u8]) -> Result<bool, UsageError> {
        let Phase::Asked { hello, transcript, proof } = std::mem::replace(&mut self.phase, Phase::Over) else {
            return Err(not_asked());
        };
        let is_right = login::worker_proof(secret, &transcript) == blake3::Hash::from_bytes(proof);
        if !is_right || secret.is_empty() {
            self.outbox.push_frame(&Frame::Refused { reason: "credentials", text: BAD_CREDENTIALS })?;
            return Ok(false);
        }
        let ours = login::master_proof(secret, &transcript, &proof);
        self.outbox.push_frame(&Frame::Proof(ours.as_bytes()))?;
        self.log_in(hello);
        Ok(true)
    }

    /// At the master, when asked: does not let the worker in.
    pub fn refuse(&mut self, reason: &str, text: &str) -> Result<(), UsageError> {
        if !matches!(self.phase, Phase::Asked { .. }) {
            return Err(not_asked());
        }
        self.phase = Phase::Over;
        self.outbox.push_frame(&Frame::Refused { reason: &one_line(reason), text: &one_line(text) })
    }

    pub(super) fn greet(&mut self) -> Result<(), UsageError> {
        self.greeting_sent = true;
        self.outbox.push_control(PREFACE);
        self.outbox.push_frame(&Frame::Hello(&self.our_hello))
    }

    pub(super) fn worker_greets(&mut self, payload: &[u8]) -> Result<(), ProtocolError> {
        let hello = Hello::decode(payload, Role::Worker)?;
        let Party::Worker { versions, .. } = hello.party else { return Ok(()) };
        let Some(version) = login::common_version(versions) else {
            self.phase = Phase::Over;
            self.greeting_sent = true;
            self.outbox.push_control(PREFACE);
            let ((low, high), (lowest, highest)) = (versions, login::VERSIONS);
            let text = format!("the worker speaks versions {low} to {high}, the master {lowest} to {highest}");
            self.answer(&Frame::Refused { reason: "version", text: &text })?;
            return Err(ProtocolError::new(3, text));
        };
        self.version = version;
        self.our_hello = our_hello(&self.config, version).encode().map_err(ours_fault)?;
        self.greet().map_err(ours_fault)?;
        let transcript = login::transcript(payload, &self.our_hello).map_err(ours_fault)?;
        self.phase = Phase::Proof { hello, transcript, proof: [0; 32] };
        Ok(())
    }

    pub(super) fn master_greets(&mut self, payload: &[u8]) -> Result<(), ProtocolError> {
        let hello = Hello::decode(payload, Role::Master)?;
        let Party::Master { version, .. } = hello.party else { return Ok(()) };
        if !(login::VERSIONS.0..=login::VERSIONS.1).contains(&version) {
            return Err(ProtocolError::new(
                3,
                format!("the master wants to speak version {version}, which was not offered"),
            ));
        }
        self.version = version;
        let transcript = login::transcript(&self.our_hello, payload).map_err(ours_fault)?;
        let proof = *login::worker_proof(&self.config.secret, &transcript).as_bytes();
        self.answer(&Frame::Proof(&proof))?;
        self.phase = Phase::Proof { hello, transcript, proof };
        Ok(())
    }

    pub(super) fn proven(&mut self, theirs: &Bytes32) -> Result<(), ProtocolError> {
        let Phase::Proof { hello, transcript, proof } = std::mem::replace(&mut self.phase, Phase::Hello) else {
            return Ok(());
        };
        if let Party::Worker { name, instance, .. } = &hello.party {
            let (name, instance) = (name.clone(), instance.clone());
            let (software, capabilities) = (hello.software.clone(), hello.capabilities.clone());
            self.events.push_back(Event::LoginAsked { name, instance, software, capabilities });
            self.phase = Phase::Asked { hello, transcript, proof: *theirs };
            return Ok(());
        }
        // Hashes are compared in constant time.
        if login::master_proof(&self.config.secret, &transcript, &proof) != blake3::Hash::from_bytes(*theirs) {
            return Err(ProtocolError::new(3, "the master has not proven that it knows this worker's secret"));
        }
        self.log_in(hello);
        Ok(())
    }

    pub(super) fn log_in(&mut self, hello: Hello) {
        self.phase = Phase::Open;
        let knows = |capabilities: &[String]| capabilities.iter().any(|word| word == ZSTD);
        if knows(&self.config.capabilities) && knows(&hello.capabilities) {
            self.compression = Compression::Never;
        }
        self.outgoing.begin(hello.stream_window, hello.connection_window, hello.streams_max);
        let (Party::Worker { instance: peer, .. } | Party::Master { master: peer, .. }) = hello.party;
        let (software, capabilities, version) = (hello.software, hello.capabilities, self.version);
        self.events.push_back(Event::LoggedIn { peer, software, capabilities, version });
    }
}

/// The hello that `config` makes.
pub(super) fn our_hello(config: &Config, version: u64) -> Hello {
    let party = match config.role {
        Role::Worker => {
            Party::Worker { versions: login::VERSIONS, name: config.name.clone(), instance: config.id.clone() }
        }
        Role::Master => Party::Master { version, master: config.id.clone() },
    };
    Hello {
        party,
        nonce: config.nonce,
        capabilities: config.capabilities.clone(),
        software: config.software.clone(),
        stream_window: window::floor(config.stream_window, config.connection_window),
        connection_window: config.connection_window,
        streams_max: config.streams_max,
    }
}

/// Whether a session can be made of it.
pub(super) fn check(config: &Config) -> Result<(), UsageError> {
    let windows = [config.stream_window, config.connection_window, config.streams_max];
    if windows.iter().any(|&number| number == 0 || number > varint::MAX >> 8) {
        return Err(UsageError(format!("windows and streams of {windows:?} are out of range")));
    }
    if config.role == Role::Worker && (config.name.is_empty() || config.secret.is_empty()) {
        return Err(UsageError("a worker needs a name and a secret".to_owned()));
    }
    Ok(())
}

fn not_asked() -> UsageError {
    UsageError("no worker asks to be let in".to_owned())
}

/// What we are about to send was made by us and fits; if not, the session cannot go on all the same.
pub(super) fn ours_fault(error: UsageError) -> ProtocolError {
    ProtocolError::new(3, error.0)
}
