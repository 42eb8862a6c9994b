package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"gotong/grid/disk"
	"gotong/grid/node"
	controlv1 "gotong/proto/control/v1"
)

// Exit codes; the help of the program lists them.
const (
	exitOK          = 0
	exitFailed      = int(controlv1.Kind_KIND_FAILED)
	exitUsage       = int(controlv1.Kind_KIND_USAGE)
	exitSkipped     = int(controlv1.Kind_KIND_SKIPPED)
	exitTooFew      = int(controlv1.Kind_KIND_TOO_FEW)
	exitNotSetUp    = int(controlv1.Kind_KIND_NOT_SET_UP)
	exitWrongPhrase = int(controlv1.Kind_KIND_WRONG_PHRASE)
	exitCorrupt     = int(controlv1.Kind_KIND_CORRUPT)
	exitTemporary   = int(controlv1.Kind_KIND_TEMPORARY)
	exitInterrupted = 130
)

// failure is an error as the user reads it.
type failure struct {
	code    int
	what    string // what failed
	meaning string // what it means for the user's data
	next    string // the command to try next
	cause   error
}

func (f *failure) Error() string { return f.what }
func (f *failure) Unwrap() error { return f.cause }

// failureOf turns any error into what the user reads: this package's own, a
// node.Failure from a command that runs without the peer, the detail that the
// peer sent with a failed call, or the bare words.
func failureOf(err error) *failure {
	var own *failure
	if errors.As(err, &own) {
		return own
	}
	var local *node.Failure
	if errors.As(err, &local) {
		return &failure{int(local.Kind), local.Error(), local.Meaning, local.Next, err}
	}
	if s, ok := status.FromError(err); ok {
		return failureOfStatus(s, err)
	}
	f := &failure{code: exitFailed, what: err.Error(), cause: err}
	if disk.IsFull(err) {
		f.meaning, f.next = "nothing of yours was lost; what was written so far stays, and its last file may be incomplete", "make room there, then the same command again"
	}
	return f
}

func failureOfStatus(s *status.Status, err error) *failure {
	for _, detail := range s.Details() {
		if d, ok := detail.(*controlv1.ErrorDetail); ok {
			return &failure{int(d.Kind), d.What, d.Meaning, d.Next, err}
		}
	}
	switch s.Code() {
	case codes.Unavailable:
		return &failure{exitNotSetUp, "the peer stopped while it was working on this", "what it had not acknowledged may be missing", "gotong up", err}
	case codes.DeadlineExceeded:
		f := failureOf(node.NotAnswering())
		f.cause = err
		return f
	case codes.Canceled:
		return interruption(err)
	}
	return &failure{code: exitFailed, what: s.Message(), cause: err}
}

// interruption is the end of a command that its user stopped. All that take long
// are made to be repeated.
func interruption(cause error) *failure {
	return &failure{exitInterrupted, "interrupted", "what was done until then stays", "the same command again does what is missing", cause}
}

// report prints a failure to standard error.
func (a *app) report(f *failure) {
	if a.json {
		line, _ := json.Marshal(struct { // of strings and a number: cannot fail
			Type    string `json:"type"`
			Code    int    `json:"code"`
			What    string `json:"what"`
			Meaning string `json:"meaning,omitempty"`
			Next    string `json:"next,omitempty"`
		}{"error", f.code, f.what, f.meaning, f.next})
		fmt.Fprintf(a.stderr, "%s\n", line)
		return
	}
	fmt.Fprintf(a.stderr, "gotong: %s\n", printableLines(f.what))
	if f.meaning != "" {
		fmt.Fprintf(a.stderr, "  %s\n", strings.ReplaceAll(printableLines(f.meaning), "\n", "\n  "))
	}
	if f.next != "" {
		fmt.Fprintf(a.stderr, "  try: %s\n", printable(f.next))
	}
}
