//! The contract, served to grpcurl and its kind. Both versions of the reflection service are offered: Python's client and
//! grpcurl before 1.8.8 ask for `v1alpha` only.

use oncelog_proto::FILE_DESCRIPTOR_SET;
use tonic_reflection::server::{
    Builder,
    v1::{ServerReflection, ServerReflectionServer},
    v1alpha::{ServerReflection as ServerReflectionAlpha, ServerReflectionServer as ServerReflectionAlphaServer},
};

/// The reflection service. It lists `services` (full names) and, beside them, health and itself: the contract's files hold the
/// services of both processes, and a list that names one which is not served here would mislead.
pub fn v1(services: &[&'static str]) -> ServerReflectionServer<impl ServerReflection> {
    builder(services).with_service_name("grpc.reflection.v1.ServerReflection").build_v1().expect(VALID)
}

/// The same under its old name.
pub fn v1alpha(services: &[&'static str]) -> ServerReflectionAlphaServer<impl ServerReflectionAlpha> {
    builder(services).with_service_name("grpc.reflection.v1alpha.ServerReflection").build_v1alpha().expect(VALID)
}

fn builder(services: &[&'static str]) -> Builder<'static> {
    let builder = Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .with_service_name("grpc.health.v1.Health");
    services.iter().fold(builder, |builder, name| builder.with_service_name(*name))
}

const VALID: &str = "the descriptors were written by a compiler";
