package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"google.golang.org/grpc"

	"gotong/grid"
	"gotong/grid/blake3"
	controlv1 "gotong/proto/control/v1"
	"gotong/storage"
	"gotong/tasks"
	"gotong/tasks/contents"
	"gotong/tasks/jobs"
	"gotong/tasks/keeper"
	"gotong/tasks/scheduler"
	"gotong/tasks/where"
)

// maxSubmitContents bounds the contents that come with one job; small files
// ride in its lists of items.
const maxSubmitContents = 1 << 16

type submitStream = grpc.ClientStreamingServer[controlv1.SubmitRequest, controlv1.SubmitResponse]

// submission is a job that is being submitted.
type submission struct {
	peer *Peer
	dir  string // for what came with it; removed in the end
	plan jobs.Plan
	have map[tasks.ContentID]submitContent
}

// submitContent is a content that came with a job.
type submitContent struct {
	path string
	size int64
}

// Submit takes a job from the command line and hands it to those who keep it.
func (s *service) Submit(stream submitStream) error {
	request, err := stream.Recv()
	if err != nil {
		return err
	}
	start := request.GetPlan()
	if start == nil {
		return fmt.Errorf("%w: a job begins with its plan", tasks.ErrInvalid)
	}
	plan, err := jobs.DecodeDraft(start.Plan)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(s.peer.work.submitDir, "submit-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	sub := &submission{peer: s.peer, dir: dir, plan: plan, have: map[tasks.ContentID]submitContent{}}
	if err := sub.begin(time.Duration(start.ExpiresSeconds) * time.Second); err != nil {
		return err
	}
	if err := sub.checkSites(stream.Context()); err != nil {
		return err
	}
	if err := sub.receive(stream); err != nil {
		return err
	}
	response, err := sub.finish(stream.Context())
	if err != nil {
		return err
	}
	return stream.SendAndClose(response)
}

// begin fills in what only this peer knows, and checks what can be checked.
func (s *submission) begin(expires time.Duration) error {
	if expires <= 0 {
		expires = jobLife
	}
	if expires > maxJobLife {
		return refuse("a job may take %s at most", maxJobLife)
	}
	p, now := &s.plan, time.Now().UTC().Truncate(time.Second)
	p.Job, p.Key, p.Known = tasks.NewJobID(), tasks.NewKey(), nil
	p.Owner, p.Submitter = s.peer.owner(), s.peer.ID()
	p.Created, p.Expires = now, now.Add(expires)
	if p.Retention == 0 {
		p.Retention = s.peer.cfg().Tasks.Retention
	}
	for i := range p.Steps {
		p.Steps[i].Stored = nil
		if _, err := where.Parse(p.Steps[i].Where); err != nil {
			return refuse("step %q: where: %v", p.Steps[i].Name, err)
		}
	}
	if err := p.Validate(); err != nil {
		return refuse("%v", err)
	}
	return nil
}

// checkSites refuses a job whose results cannot be checked as a step wants it by
// the peers that are there now.
func (s *submission) checkSites(ctx context.Context) error {
	plan := s.plan
	var err error
	if plan.Grant, err = s.peer.grantJob(plan.Job, 0, time.Until(plan.Expires)); err != nil {
		return err
	}
	for _, step := range plan.Steps {
		verify, err := tasks.ParseVerify(step.Verify)
		if err != nil {
			return refuse("step %q: %v", step.Name, err)
		}
		pool, err := s.peer.stepPool(step)
		if err != nil {
			return err
		}
		err = scheduler.CheckSites(ctx, scheduler.Job{Header: stepHeader(plan, step)}, scheduler.Config{Verify: verify, Pool: pool})
		if errors.Is(err, scheduler.ErrTooFewSites) {
			return &Failure{Kind: controlv1.Kind_KIND_TOO_FEW, What: fmt.Sprintf("step %q: %v", step.Name, err),
				Meaning: "nothing was submitted", Next: "gotong peers; or another way to check results (verify)"}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func refuse(format string, args ...any) error {
	return &Failure{Kind: controlv1.Kind_KIND_USAGE, What: fmt.Sprintf(format, args...), Meaning: "nothing was submitted", Next: "correct it and submit it again"}
}

// receive stores what comes with the job, up to the end.
func (s *submission) receive(stream submitStream) error {
	request, err := stream.Recv()
	for {
		switch {
		case err != nil:
			return err
		case request.GetEnd() != nil:
			return nil
		case request.GetContent() == nil:
			return fmt.Errorf("%w: a content begins with its id", tasks.ErrInvalid)
		case len(s.have) >= maxSubmitContents:
			return refuse("more than %d files; small ones ride in the list of items, and larger ones can be put into archives", maxSubmitContents)
		}
		if request, err = s.content(stream, request.GetContent()); err != nil {
			return err
		}
	}
}

// content stores one content and returns the request after it.
func (s *submission) content(stream submitStream, c *controlv1.SubmitContent) (*controlv1.SubmitRequest, error) {
	id := tasks.ContentID{}
	if copy(id[:], c.Id) != len(id) || len(c.Id) != len(id) {
		return nil, fmt.Errorf("%w: bad content id", tasks.ErrInvalid)
	}
	got := submitContent{path: filepath.Join(s.dir, strconv.Itoa(len(s.have)))}
	f, err := os.OpenFile(got.path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	hash := blake3.New()
	to := io.MultiWriter(f, hash)
	for {
		request, err := stream.Recv()
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		if data := request.GetData(); len(data) > 0 {
			got.size += int64(len(data))
			if _, err := to.Write(data); err != nil {
				return nil, errors.Join(err, f.Close())
			}
			continue
		}
		if err := f.Close(); err != nil {
			return nil, err
		}
		if hash.Sum256() != id {
			return nil, &Failure{Kind: controlv1.Kind_KIND_TEMPORARY, What: "a file of the job changed while it was read",
				Meaning: "nothing was submitted", Next: "the same command again"}
		}
		s.have[id] = got
		return request, nil
	}
}

// finish stores the contents on the grid where it can, signs the plan and hands
// the job over.
func (s *submission) finish(ctx context.Context) (*controlv1.SubmitResponse, error) {
	var err error
	if s.plan.Grant, err = s.peer.grantJob(s.plan.Job, s.bytes(), time.Until(s.plan.Expires)+s.plan.Retention); err != nil {
		return nil, err
	}
	left, err := s.store(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.know(); err != nil {
		return nil, err
	}
	raw, err := jobs.SignPlan(s.peer.node.Private(), s.plan)
	if err != nil {
		return nil, refuse("%v", err)
	}
	kept, err := s.hand(ctx, raw, left)
	if err != nil {
		return nil, err
	}
	out := &controlv1.SubmitResponse{Job: s.plan.Job.String(), Alone: kept.Alone, Stored: len(left) == 0}
	for _, id := range kept.Durable {
		out.Keepers = append(out.Keepers, s.peer.nameOf(id))
	}
	return out, nil
}

// hand gives the job to its keepers. One whose contents could not be stored on
// the grid is kept here alone, where they are.
func (s *submission) hand(ctx context.Context, raw []byte, left map[tasks.ContentID]string) (keeper.Submitted, error) {
	k := s.peer.keeping
	if len(left) == 0 {
		kept, err := k.keeper.Submit(ctx, raw)
		if errors.Is(err, keeper.ErrTooFew) {
			err = &Failure{Kind: controlv1.Kind_KIND_TOO_FEW, What: err.Error(), Meaning: "nothing was submitted",
				Next: "gotong peers; keepers: any in the job file lets more peers keep it"}
		}
		return kept, err
	}
	if _, err := k.store.CreateWith(raw, left); err != nil {
		return keeper.Submitted{}, err
	}
	self := []grid.PeerID{s.peer.ID()}
	if err := k.keeper.Put(ctx, s.peer.ID(), keeper.PutRequest{Plan: raw, List: keeper.List{Peers: self}}); err != nil {
		return keeper.Submitted{}, errors.Join(err, k.store.Remove(s.plan.Job))
	}
	return keeper.Submitted{Durable: self, Alone: true}, nil
}

// bytes bounds what may be stored for the job, twice over, for what is stored
// and lost again.
func (s *submission) bytes() int64 {
	total := int64(0)
	add := func(n, times int64) {
		if each := contents.Bytes(n); each > (storage.MaxJobBytes/2-total)/max(1, times) {
			total = storage.MaxJobBytes / 2
		} else {
			total += each * times
		}
	}
	for _, c := range s.have {
		add(c.size, 2) // lists of items are written anew
	}
	for _, step := range s.plan.Steps {
		add(step.Limits.StdoutBytes, int64(step.Items.Count))
		if step.Outputs {
			add(step.Limits.OutputBytes, int64(step.Items.Count))
		}
		add(int64(len(step.Items.Data)), 4)
	}
	return 2 * total
}

// store stores contents on the grid and says in the plan where they are. It
// returns those that have to stay with whoever keeps the job.
func (s *submission) store(ctx context.Context) (left map[tasks.ContentID]string, err error) {
	lists := map[tasks.ContentID]bool{}
	for _, step := range s.plan.Steps {
		if len(step.Items.Data) == 0 {
			lists[step.Items.Content] = true
		}
	}
	files := maps.Clone(s.have)
	maps.DeleteFunc(files, func(id tasks.ContentID, _ submitContent) bool { return lists[id] })
	stored, possible, err := s.put(ctx, files)
	if err != nil {
		return nil, err
	}
	if possible {
		if err := s.placeItems(stored); err != nil {
			return nil, err
		}
		files = map[tasks.ContentID]submitContent{}
		for _, step := range s.plan.Steps {
			if c, ok := s.have[step.Items.Content]; ok && len(step.Items.Data) == 0 {
				files[step.Items.Content] = c
			}
		}
		more, all, err := s.put(ctx, files)
		if err != nil {
			return nil, err
		}
		maps.Copy(stored, more)
		possible = all
	}
	left = map[tasks.ContentID]string{}
	for i := range s.plan.Steps {
		step := &s.plan.Steps[i]
		step.Stored = map[tasks.ContentID]tasks.Stored{}
		for _, id := range step.Contents() {
			if at, ok := stored[id]; ok {
				step.Stored[id] = at
			}
		}
	}
	if !possible { // whoever drives the job hands them out
		for id, c := range s.have {
			left[id] = c.path
		}
	}
	return left, nil
}

// put stores contents on the grid. Not all of them: they stay here.
func (s *submission) put(ctx context.Context, files map[tasks.ContentID]submitContent) (stored map[tasks.ContentID]tasks.Stored, all bool, err error) {
	stored = map[tasks.ContentID]tasks.Stored{}
	job := contents.Job{ID: s.plan.Job, Key: s.plan.Key, Grant: s.plan.Grant}
	for id, c := range files {
		if c.size == 0 {
			continue
		}
		f, err := os.Open(c.path)
		if err != nil {
			return nil, false, err
		}
		at, err := s.peer.keeping.contents.Put(ctx, job, id, c.size, f)
		f.Close()
		switch {
		case ctx.Err() != nil:
			return nil, false, context.Cause(ctx)
		case err != nil:
			s.peer.logger.Info("the contents of a job stay with its keepers, because they cannot be stored on the grid", "job", s.plan.Job.Short(), "err", err)
			return stored, false, nil
		}
		stored[id] = at
	}
	return stored, true, nil
}

// placeItems writes the lists of items anew, with the places of the files that
// they name.
func (s *submission) placeItems(stored map[tasks.ContentID]tasks.Stored) error {
	anew := map[tasks.ContentID]jobs.Items{}
	for i := range s.plan.Steps {
		step := &s.plan.Steps[i]
		old := step.Items
		if old.Content.IsZero() {
			continue
		}
		if _, done := anew[old.Content]; !done {
			items, err := s.placeList(old, stored)
			if err != nil {
				return fmt.Errorf("items of step %q: %w", step.Name, err)
			}
			anew[old.Content] = items
		}
		step.Items = anew[old.Content]
	}
	return nil
}

func (s *submission) placeList(old jobs.Items, stored map[tasks.ContentID]tasks.Stored) (jobs.Items, error) {
	from, closer, err := old.Open(s.have[old.Content].path)
	if err != nil {
		return old, err
	}
	defer closer.Close()
	path := filepath.Join(s.dir, "items-"+strconv.Itoa(len(s.have)))
	changed := false
	items, err := jobs.WriteItems(path, func(add func(jobs.Item) error) error {
		for i := range old.Count {
			item, err := from.Item(i)
			if err != nil {
				return err
			}
			for _, id := range (tasks.Spec{Inputs: item.Inputs, Stdin: item.Stdin}).Contents() {
				if at, ok := stored[id]; ok {
					if item.Stored == nil {
						item.Stored = map[tasks.ContentID]tasks.Stored{}
					}
					item.Stored[id], changed = at, true
				}
			}
			if err := add(item); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil || !changed {
		return old, err
	}
	if items.Data == nil {
		s.have[items.Content] = submitContent{path, items.Size}
	}
	return items, nil
}
