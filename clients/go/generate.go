// Package clients holds two small clients of oncelog and what their build generates: `go generate ./...` needs protoc.
package clients

//go:generate sh generate.sh
