// Package archtest holds the tests that guard the shape of the tree: which
// package may import which, who alone touches a heavy library, that every
// package explains itself, and that every gRPC method has an authorisation
// rule. Each check also fails when it had nothing to look at.
package archtest
