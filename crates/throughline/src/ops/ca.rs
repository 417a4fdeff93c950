//! `tl ops ca`: an authority of the cluster's own, and the certificates that it gives to members.
//!
//! A certificate names the life of a member's data directory, so each directory has one and a
//! new one needs another. The authority's key is needed to make certificates and nowhere else:
//! it does not belong on a member.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use serde_json::json;
use tl_engine::identity::Identity;
use tl_raft::transport::node_name;
use tl_types::NodeId;

use crate::failure::Failure;
use crate::output::Out;

/// The authority's certificate, in its folder.
const AUTHORITY: &str = "authority.pem";
/// The authority's private key, beside it.
const AUTHORITY_KEY: &str = "authority.key";

/// The words of `tl ops ca`.
#[derive(Debug, Subcommand)]
pub enum CaCommand {
    /// Make an authority
    Init(InitArgs),
    /// Make the certificate of one member
    Issue(IssueArgs),
}

/// Arguments of `tl ops ca init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Folder for the authority's certificate and key
    #[arg(long, value_name = "DIR")]
    ca: PathBuf,
}

/// Arguments of `tl ops ca issue`.
#[derive(Debug, Args)]
pub struct IssueArgs {
    /// Folder of the authority
    #[arg(long, value_name = "DIR")]
    ca: PathBuf,
    /// The member's data directory, as the founding made it
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Folder for the member's certificate and key and the authority's certificate
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Runs one word.
pub fn run(command: CaCommand, out: &Out) -> anyhow::Result<()> {
    match command {
        CaCommand::Init(args) => init(&args, out),
        CaCommand::Issue(args) => issue(&args, out),
    }
}

/// What every authority's certificate says; its key is what tells one from another.
fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, "Throughline cluster");
    params
}

fn init(args: &InitArgs, out: &Out) -> anyhow::Result<()> {
    let key = KeyPair::generate().context("making a key")?;
    let authority =
        authority_params().self_signed(&key).context("making the authority's certificate")?;
    make_folder(&args.ca)?;
    write_new(&args.ca.join(AUTHORITY_KEY), &key.serialize_pem())?;
    write_new(&args.ca.join(AUTHORITY), &authority.pem())?;
    let folder = args.ca.display().to_string();
    out.either(&json!({ "authority": folder }), &format!("The authority is in {folder}."))
}

fn issue(args: &IssueArgs, out: &Out) -> anyhow::Result<()> {
    let identity = Identity::open(&args.data)?.ok_or_else(|| Failure::WithAdvice {
        what: format!("{} is not a node's data directory", args.data.display()),
        advice: "found the cluster first, with `tl ops found`".to_owned(),
    })?;
    let read = |name: &str| {
        let path = args.ca.join(name);
        std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    };
    let authority = read(AUTHORITY)?;
    let authority_key = KeyPair::from_pem(&read(AUTHORITY_KEY)?).context("the authority's key")?;
    let issuer = Issuer::new(authority_params(), authority_key);
    let name = node_name(NodeId(identity.node_id_bytes()));
    let mut params = CertificateParams::new(vec![name.clone()]).context("naming the member")?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // A member calls and is called with the same certificate.
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().context("making a key")?;
    let certificate = params.signed_by(&key, &issuer).context("making the certificate")?;
    make_folder(&args.out)?;
    write_new(&args.out.join("node.key"), &key.serialize_pem())?;
    write_new(&args.out.join("node.pem"), &certificate.pem())?;
    write_new(&args.out.join(AUTHORITY), &authority)?;
    let folder = args.out.display().to_string();
    let text = format!(
        "The certificate is in {folder}. Set cluster.authority, cluster.certificate and \
         cluster.key\nto {AUTHORITY}, node.pem and node.key in it."
    );
    out.either(&json!({ "certificate": folder, "name": name }), &text)
}

fn make_folder(folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))
}

/// Writes a file that must not be there yet and that only its owner may read.
fn write_new(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(path);
    let written = file.and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.with_context(|| format!("writing {}", path.display()))
}
