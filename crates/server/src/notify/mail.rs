//! Notices as mail.

use async_trait::async_trait;
use lettre::message::Mailbox;
use lettre::message::header::ContentType;
use lettre::transport::smtp::authentication::Credentials;
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use shiplap_model::Secret;

use super::{Channel, Notice, OnlyFailures};

/// The subject of a mail.
const SUBJECT: &str = "{project}/{environment}: {kind} {outcome}";
/// Its text.
const TEXT: &str = "{summary}\n\n{project}/{environment}: {kind} by {who} is {outcome}.\n\
    Order {order}, deployment {deployment}, exit code {exit}.\n\n{message}\n";

/// Mail to somebody.
pub struct Mail {
    name: String,
    from: Mailbox,
    to: Vec<Mailbox>,
    only_failures: OnlyFailures,
    transport: AsyncSmtpTransport<Tokio1Executor>,
}

/// Who takes mail.
#[derive(Debug, Clone)]
pub struct MailServer {
    /// Its name, which its certificate must have.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How it is spoken to.
    pub tls: MailTls,
    /// User and password, where it wants them.
    pub credentials: Option<(String, Secret<String>)>,
}

/// How a server for mail is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailTls {
    /// TLS from the first byte (port 465).
    Implicit,
    /// STARTTLS, without which nothing is sent (port 587).
    Starttls,
    /// In the clear, for a relay on the same machine (port 25).
    None,
}

impl Mail {
    /// Mail to all of `to`.
    ///
    /// # Errors
    /// When an address is none, there is nobody to send to, or a password would go in the clear.
    pub fn new(
        name: &str,
        server: &MailServer,
        from: &str,
        to: &[String],
        only_failures: OnlyFailures,
    ) -> Result<Self, String> {
        let address =
            |text: &str| text.parse::<Mailbox>().map_err(|error| format!("`{text}`: {error}"));
        let to = to.iter().map(|to| address(to)).collect::<Result<Vec<_>, _>>()?;
        if to.is_empty() {
            return Err("there is nobody to send to".to_owned());
        }
        let (name, from) = (name.to_owned(), address(from)?);
        Ok(Self { name, from, to, only_failures, transport: transport(server)? })
    }

    fn message(&self, notice: &Notice) -> Result<Message, String> {
        // Lines of a subject would be headers of the mail.
        let subject = notice.fill_text(SUBJECT).replace(['\r', '\n'], " ");
        let mut message = Message::builder()
            .from(self.from.clone())
            .subject(subject)
            .header(ContentType::TEXT_PLAIN);
        for to in &self.to {
            message = message.to(to.clone());
        }
        message.body(notice.fill_text(TEXT)).map_err(|error| error.to_string())
    }
}

fn transport(server: &MailServer) -> Result<AsyncSmtpTransport<Tokio1Executor>, String> {
    let MailServer { host, port, tls, credentials } = server;
    let builder = match tls {
        MailTls::Implicit => AsyncSmtpTransport::<Tokio1Executor>::relay(host),
        MailTls::Starttls => AsyncSmtpTransport::<Tokio1Executor>::starttls_relay(host),
        MailTls::None if credentials.is_some() => {
            return Err("a password is not sent in the clear".to_owned());
        }
        MailTls::None => Ok(AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(host)),
    };
    let mut builder = builder.map_err(|error| error.to_string())?.port(*port);
    if let Some((user, password)) = credentials {
        builder = builder.credentials(Credentials::new(user.clone(), password.expose().clone()));
    }
    Ok(builder.build())
}

#[async_trait]
impl Channel for Mail {
    fn name(&self) -> &str {
        &self.name
    }

    fn wants(&self, notice: &Notice) -> bool {
        self.only_failures.wants(notice)
    }

    async fn send(&self, notice: &Notice) -> Result<(), String> {
        let message = self.message(notice)?;
        self.transport.send(message).await.map(drop).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    use tokio::net::TcpListener;

    use super::*;

    fn notice() -> Notice {
        Notice {
            order: 12,
            project: "shop".into(),
            environment: "prod".into(),
            kind: "deploy".into(),
            who: "ci".into(),
            message: "why".into(),
            outcome: "failed".into(),
            exit: 1,
            deployment: None,
            summary: "no image".into(),
        }
    }

    fn server(port: u16) -> MailServer {
        MailServer { host: "127.0.0.1".into(), port, tls: MailTls::None, credentials: None }
    }

    /// Takes one mail, as RFC 5321 has it, and gives back what was said.
    async fn relay(listener: TcpListener) -> String {
        let (stream, _) = listener.accept().await.unwrap();
        let (reading, mut writing) = stream.into_split();
        let mut lines = BufReader::new(reading).lines();
        writing.write_all(b"220 relay\r\n").await.unwrap();
        let (mut said, mut is_data) = (String::new(), false);
        while let Some(line) = lines.next_line().await.unwrap() {
            said.push_str(&line);
            said.push('\n');
            if is_data && line != "." {
                continue;
            }
            let answer: &[u8] = match (is_data, line.as_str()) {
                (true, _) => b"250 taken\r\n",
                (false, "DATA") => b"354 go on\r\n",
                (false, _) => b"250 relay\r\n",
            };
            is_data = line == "DATA";
            writing.write_all(answer).await.unwrap();
            if said.ends_with("\n.\n") {
                break;
            }
        }
        said
    }

    #[tokio::test]
    async fn a_mail_says_what_happened_to_all_who_shall_know() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = server(listener.local_addr().unwrap().port());
        let taken = tokio::spawn(relay(listener));
        let to = ["Ada <ada@example.com>".to_owned(), "ops@example.com".to_owned()];
        let mail =
            Mail::new("mail", &server, "shiplap@example.com", &to, OnlyFailures::Yes).unwrap();
        mail.send(&notice()).await.unwrap();
        let said = taken.await.unwrap();
        for part in [
            "RCPT TO:<ada@example.com>",
            "RCPT TO:<ops@example.com>",
            "Subject: shop/prod: deploy failed",
            "no image",
            "Order 12, deployment , exit code 1.",
        ] {
            assert!(said.contains(part), "{part} in {said}");
        }
    }

    #[test]
    fn no_password_goes_in_the_clear_and_no_line_into_a_header() {
        let to = ["ops@example.com".to_owned()];
        let mut server = server(25);
        let mail = Mail::new("mail", &server, "s@example.com", &to, OnlyFailures::No).unwrap();
        let sly = Notice { project: "x\r\nBcc: evil@example.com".into(), ..notice() };
        let text = String::from_utf8(mail.message(&sly).unwrap().formatted()).unwrap();
        let head = text.split("\r\n\r\n").next().unwrap();
        assert!(!head.lines().any(|line| line.starts_with("Bcc:")), "{head}");
        server.credentials = Some(("ci".into(), Secret::new("s3cret".into())));
        assert!(Mail::new("mail", &server, "s@example.com", &to, OnlyFailures::No).is_err());
        server.tls = MailTls::Starttls;
        assert!(Mail::new("mail", &server, "s@example.com", &to, OnlyFailures::No).is_ok());
        assert!(Mail::new("mail", &server, "nobody", &to, OnlyFailures::No).is_err());
        assert!(Mail::new("mail", &server, "s@example.com", &[], OnlyFailures::No).is_err());
    }
}
