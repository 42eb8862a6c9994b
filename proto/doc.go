// Package proto is the home of the wire and disk messages: one folder per
// protocol and major version, each with its .proto file and the generated
// code, which `go run ./proto/gen` rewrites.
package proto
