package invite

import (
	"errors"
	"fmt"

	"gotong/grid"
	invitev1 "gotong/proto/invite/v1"
)

// Errors of invites, the same on both ends of a join connection. Test with
// errors.Is. grid.ErrRemoved and grid.ErrNotMember cross it too.
var (
	ErrUnknownInvite = errors.New("the inviting peer does not know this invite")
	ErrWrongSecret   = errors.New("wrong secret for this invite")
	ErrUsed          = errors.New("this invite was used by another peer")
	ErrExpired       = errors.New("this invite has expired")
	ErrBurnt         = errors.New("this invite is void after too many wrong tries")
	ErrBusy          = errors.New("the other peer has too many join connections; try again")
	ErrBadRequest    = errors.New("the other peer did not accept the request")
	ErrFailed        = errors.New("the other peer could not do it")
	// ErrAnswer: the other side answered something that does not verify.
	ErrAnswer = errors.New("answer does not verify")
)

// statuses pairs each error with what stands for it on the wire.
var statuses = []struct {
	err    error
	status invitev1.Status
}{
	{ErrUnknownInvite, invitev1.Status_STATUS_UNKNOWN_INVITE},
	{ErrWrongSecret, invitev1.Status_STATUS_WRONG_SECRET},
	{ErrUsed, invitev1.Status_STATUS_USED},
	{ErrExpired, invitev1.Status_STATUS_EXPIRED},
	{ErrBurnt, invitev1.Status_STATUS_BURNT},
	{grid.ErrRemoved, invitev1.Status_STATUS_REMOVED},
	{grid.ErrNotMember, invitev1.Status_STATUS_NOT_MEMBER},
	{ErrBusy, invitev1.Status_STATUS_BUSY},
	{ErrBadRequest, invitev1.Status_STATUS_BAD_REQUEST},
}

// statusOf returns the status for an error; what has none is a failure whose
// reason stays here.
func statusOf(err error) invitev1.Status {
	if err == nil {
		return invitev1.Status_STATUS_OK
	}
	for _, s := range statuses {
		if errors.Is(err, s.err) {
			return s.status
		}
	}
	return invitev1.Status_STATUS_FAILED
}

// errorOf returns the error that a response stands for.
func errorOf(r *invitev1.Response) error {
	if r.GetStatus() == invitev1.Status_STATUS_OK {
		return nil
	}
	err := ErrFailed
	for _, s := range statuses {
		if s.status == r.GetStatus() {
			err = s.err
		}
	}
	if text := r.GetMessage(); text != "" {
		return fmt.Errorf("%w: it said %.*q", err, maxMessageRunes, text)
	}
	return err
}

// maxMessageRunes bounds what is shown of the other side's words.
const maxMessageRunes = 200
