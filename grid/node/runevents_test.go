package node

import (
	"slices"
	"testing"

	controlv1 "gotong/proto/control/v1"
)

// eventsOf plays a command that listens.
type eventsOf struct {
	requests
	got []*controlv1.RunEvent
}

func (e *eventsOf) Send(event *controlv1.RunEvent) error {
	e.got = append(e.got, event)
	return nil
}

func TestReasonsToWaitAreToldOnceUntilTheyChange(t *testing.T) {
	stream := &eventsOf{}
	e := runEvents{stream: stream}
	for _, c := range []struct{ reason, want string }{
		{"ann: its user was there 10s ago", "ann: its user was there 10s ago"},
		{"ann: its user was there 10s ago", ""},
		{"ann: its user was there 1m9s ago", "ann: its user was there 1m9s ago"}, // another unit
		{"ann: its user was there 2m7s ago", ""},
		{"ann: it runs on its battery", "ann: it runs on its battery"},
	} {
		e.reasons.note([]string{c.reason})
		stream.got = nil
		if err := e.tell(false); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, event := range stream.got {
			got = append(got, event.GetWaiting().GetReasons()...)
		}
		if want := []string{c.want}; c.want == "" && len(got) > 0 || c.want != "" && !slices.Equal(got, want) {
			t.Errorf("%q told %q, want %q", c.reason, got, c.want)
		}
	}
	if err := e.tell(true); err != nil || stream.got[len(stream.got)-1].GetProgress() == nil {
		t.Errorf("%v, %v", stream.got, err)
	}
}
