package node

import (
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	controlv1 "gotong/proto/control/v1"
)

// Failure is an error as the user of this machine needs it: its class, what it
// means for the user's data, and what to try next.
type Failure struct {
	Kind    controlv1.Kind
	What    string
	Meaning string
	Next    string
	Err     error // the cause; may be nil
}

// Error says what failed and why.
func (f *Failure) Error() string {
	if f.Err == nil {
		return f.What
	}
	return fmt.Sprintf("%s: %v", f.What, f.Err)
}

// Unwrap returns the cause.
func (f *Failure) Unwrap() error { return f.Err }

// GRPCStatus lets a Failure travel over the control socket whole.
func (f *Failure) GRPCStatus() *status.Status {
	code := codes.Unknown
	switch f.Kind {
	case controlv1.Kind_KIND_USAGE:
		code = codes.InvalidArgument
	case controlv1.Kind_KIND_REFUSED:
		code = codes.PermissionDenied
	case controlv1.Kind_KIND_TOO_FEW, controlv1.Kind_KIND_BUSY:
		code = codes.FailedPrecondition
	case controlv1.Kind_KIND_CORRUPT:
		code = codes.DataLoss
	case controlv1.Kind_KIND_TEMPORARY:
		code = codes.Aborted
	}
	s := status.New(code, f.Error())
	detailed, err := s.WithDetails(&controlv1.ErrorDetail{Kind: f.Kind, What: f.Error(), Meaning: f.Meaning, Next: f.Next})
	if err != nil {
		return s
	}
	return detailed
}
