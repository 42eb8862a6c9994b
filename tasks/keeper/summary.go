package keeper

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	tasksv1 "gotong/proto/tasks/v1"
	"gotong/tasks/jobs"
)

// Summary is what a keeper tells of a job in a list. It is not verified.
type Summary struct {
	Name      string
	State     jobs.JobState
	Counts    jobs.Counts
	Submitted time.Time
	Ended     time.Time // zero while the job is not over
	Why       string
}

// Summarise returns the summary of a job.
func Summarise(job *jobs.Job) Summary {
	plan := job.Plan()
	out := Summary{Name: plan.Name, Submitted: plan.Created}
	job.View(func(s *jobs.State) {
		out.State, out.Counts, out.Ended, out.Why = s.State(), s.Counts(), s.EndedAt(), s.Why()
	})
	return out
}

func (s Summary) encode() ([]byte, error) {
	m := &tasksv1.JobSummary{
		Name: s.Name, State: string(s.State), Tasks: uint64(s.Counts.Tasks), Done: uint64(s.Counts.Done), Failed: uint64(s.Counts.Failed),
		SubmittedUnix: s.Submitted.Unix(), Why: s.Why,
	}
	if !s.Ended.IsZero() {
		m.EndedUnix = s.Ended.Unix()
	}
	return proto.Marshal(m)
}

// maxSummaryBytes bounds an encoded summary.
const maxSummaryBytes = 4 << 10

// ParseSummary reads a keeper's summary.
func ParseSummary(raw []byte) (Summary, error) {
	var m tasksv1.JobSummary
	if len(raw) > maxSummaryBytes {
		return Summary{}, fmt.Errorf("%w: summary of %d bytes", ErrInvalid, len(raw))
	}
	if err := proto.Unmarshal(raw, &m); err != nil {
		return Summary{}, fmt.Errorf("%w: summary: %w", ErrInvalid, err)
	}
	const most = 1 << 40
	if m.Tasks > most || m.Done > most || m.Failed > most {
		return Summary{}, fmt.Errorf("%w: summary", ErrInvalid)
	}
	out := Summary{
		Name: m.Name, State: jobs.JobState(m.State), Counts: jobs.Counts{Tasks: int(m.Tasks), Done: int(m.Done), Failed: int(m.Failed)},
		Submitted: time.Unix(m.SubmittedUnix, 0).UTC(), Why: m.Why,
	}
	if m.EndedUnix != 0 {
		out.Ended = time.Unix(m.EndedUnix, 0).UTC()
	}
	return out, nil
}
