//! The page of the contract: services, messages and enums with the comments of the protobuf files, in their order.
//!
//! protoc-gen-doc does the like, but tells no field numbers, takes what is merely `optional` for a choice, and needs protoc.

use std::{collections::HashMap, fmt::Write};

use prost::Message;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet, ServiceDescriptorProto,
    field_descriptor_proto::{Label, Type},
};

use crate::page::anchor;

/// The page, as it should be.
///
/// # Panics
/// If the contract cannot be read.
pub fn page() -> String {
    let set = FileDescriptorSet::decode(oncelog_proto::FILE_DESCRIPTOR_SET).expect("it was encoded by the build");
    let files: Vec<_> = set.file.iter().filter(|file| file.package() == PACKAGE).map(File::new).collect();
    let mut page = BEGINNING.to_owned();
    for file in &files {
        for (index, service) in file.file.service.iter().enumerate() {
            file.service(&mut page, service, &[6, number(index)]);
        }
    }
    for file in &files {
        write!(page, "\n## {}\n\nFrom [{}](../proto/{1}).\n", file.title(), file.file.name()).expect(STRING);
        for (index, message) in file.file.message_type.iter().enumerate() {
            file.message(&mut page, "", message, &[4, number(index)]);
        }
        for (index, declared) in file.file.enum_type.iter().enumerate() {
            file.declared_enum(&mut page, declared, &[5, number(index)]);
        }
    }
    page
}

/// A protobuf file and what its comments say, by the path of what they stand at.
struct File<'a> {
    file: &'a FileDescriptorProto,
    comments: HashMap<&'a [i32], &'a str>,
}

impl<'a> File<'a> {
    fn new(file: &'a FileDescriptorProto) -> Self {
        let locations = file.source_code_info.iter().flat_map(|info| &info.location);
        let comments = locations.map(|location| (location.path.as_slice(), location.leading_comments())).collect();
        Self { file, comments }
    }

    fn title(&self) -> &'static str {
        if self.file.name().ends_with("broker.proto") { "Messages of the broker" } else { "Messages of the producer" }
    }

    /// As it is written, line by line.
    fn comment(&self, path: &[i32]) -> String {
        let lines = self.comments.get(path).copied().unwrap_or_default().lines();
        let text: Vec<_> = lines.map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end()).collect();
        text.join("\n").trim().to_owned()
    }

    /// In a cell of a table.
    fn cell(&self, path: &[i32]) -> String {
        self.comment(path).replace('\n', " ").replace('|', "\\|")
    }

    fn service(&self, page: &mut String, service: &ServiceDescriptorProto, path: &[i32]) {
        write!(page, "\n## {}\n\n{}\n", service.name(), self.comment(path)).expect(STRING);
        for (index, method) in service.method.iter().enumerate() {
            let end = |name: &str, stream: bool| format!("{}{}", if stream { "stream of " } else { "" }, reference(name));
            let takes = end(method.input_type(), method.client_streaming());
            let answers = end(method.output_type(), method.server_streaming());
            let comment = self.comment(&below(path, 2, index));
            write!(page, "\n### {}\n\n{takes} → {answers}\n\n{comment}\n", method.name()).expect(STRING);
        }
    }

    fn message(&self, page: &mut String, outer: &str, message: &DescriptorProto, path: &[i32]) {
        let name = format!("{outer}{}", message.name());
        assert!(message.enum_type.is_empty(), "{name}: an enum within a message would be left out here");
        write!(page, "\n### {name}\n\n{}\n", self.comment(path)).expect(STRING);
        if !message.field.is_empty() {
            page.push_str("\n| # | field | type | meaning |\n|---|---|---|---|\n");
        }
        for (index, field) in message.field.iter().enumerate() {
            let meaning = self.cell(&below(path, 2, index));
            writeln!(page, "| {} | `{}` | {} | {meaning} |", field.number(), field.name(), kind(message, field)).expect(STRING);
        }
        for (index, inner) in message.nested_type.iter().enumerate() {
            self.message(page, &format!("{name}."), inner, &below(path, 3, index));
        }
    }

    fn declared_enum(&self, page: &mut String, declared: &EnumDescriptorProto, path: &[i32]) {
        write!(page, "\n### {}\n\n{}\n\n| # | name | meaning |\n|---|---|---|\n", declared.name(), self.comment(path))
            .expect(STRING);
        for (index, value) in declared.value.iter().enumerate() {
            let meaning = self.cell(&below(path, 2, index));
            writeln!(page, "| {} | `{}` | {meaning} |", value.number(), value.name()).expect(STRING);
        }
    }
}

/// The type of a field, and whether it may be absent, be there many times, or excludes others.
fn kind(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let name = match field.r#type() {
        Type::Message | Type::Enum => reference(field.type_name()),
        scalar => scalar.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
    };
    match field.oneof_index.and_then(|index| message.oneof_decl.get(usize::try_from(index).ok()?)) {
        _ if field.label() == Label::Repeated => format!("repeated {name}"),
        // Such a field is a choice of one in the descriptor.
        _ if field.proto3_optional() => format!("optional {name}"),
        Some(choice) => format!("{name}, one of `{}`", choice.name()),
        None => name,
    }
}

/// A type's name, with a link if it is on this page.
fn reference(full_name: &str) -> String {
    let name = full_name.trim_start_matches('.');
    match name.strip_prefix(PACKAGE).and_then(|name| name.strip_prefix('.')) {
        Some(own) => format!("[{own}](#{})", anchor(own)),
        None => format!("`{name}`"),
    }
}

fn below(path: &[i32], kind: i32, index: usize) -> Vec<i32> {
    [path, &[kind, number(index)]].concat()
}

fn number(index: usize) -> i32 {
    i32::try_from(index).expect("a file has fewer declarations than that")
}

const PACKAGE: &str = "oncelog.v1";
const STRING: &str = "a string takes everything";

const BEGINNING: &str = "\
<!-- Made from the protobuf files. Write it anew by: WRITE_DOCS=1 cargo test -p oncelog-docs -->

# API reference

Two gRPC services, package `oncelog.v1`. Both also serve `grpc.health.v1` and server reflection, so grpcurl needs no file:

```sh
grpcurl -plaintext 127.0.0.1:50051 describe oncelog.v1.BrokerService
grpcurl -plaintext 127.0.0.1:50052 list
```

Everything but the headings is a comment of the protobuf files. A field that a request does not mention has its default. What errors
mean is in [one table](errors.md).

The contract follows the standard rules of `buf lint`. It only grows: `buf breaking` compares it with what
[proto/baseline.txtpb](../proto/baseline.txtpb) holds, and a change that breaks a caller fails. The baseline moves with a release, in a
commit of its own: `docs/check --move-baseline`.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_and_value_says_its_number_and_what_may_be_absent() {
        let page = page();
        for line in [
            "| 1 | `key` | optional bytes | Decides the partition of a Send without one; any bytes. Absent: no key, which differs from an empty key. |",
            "| 4 | `batches` | repeated [Batch](#batch) |",
            "| 1 | `ack` | [BatchAck](#batchack), one of `outcome` |",
            "| 2 | `append_time` | `google.protobuf.Timestamp` |",
            "| 45 | `ERROR_CODE_OUT_OF_ORDER_SEQUENCE_NUMBER` |",
            "stream of [SendStreamRequest](#sendstreamrequest) → stream of [SendStreamResponse](#sendstreamresponse)",
            "### FetchResponse.FetchedRecord",
        ] {
            assert!(page.contains(line), "{line}");
        }
    }
}
