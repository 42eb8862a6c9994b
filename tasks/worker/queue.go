package worker

import (
	"slices"

	"gotong/tasks"
)

// job is one accepted task. Its fields below the blank line are guarded by
// Worker.mu.
type job struct {
	task     tasks.Task
	key      key
	done     func(tasks.Result)
	contents []tasks.ContentID // pinned
	inputs   []tasks.ContentID // of them, what the guest reads; not the module

	run       abandoner // while it is in a sandbox
	turns     int       // how often it was taken from the queue
	cancelled bool
	settled   bool // an outcome is being made its result: later ones do not count
	answered  bool
	withdrawn error // why there is no result; set when it is answered
}

// queue keeps waiting jobs: first come first served within a key, and the keys
// in the order in which they began to wait. It is guarded by Worker.mu and
// bounded by Config.Queue.
type queue struct {
	waiting map[key]*line
	keys    []key // those with a line, longest waiting first
	count   int
}

// line is the queue of one key. Taking from its front moves an index, so that a
// long line costs nothing per task.
type line struct {
	jobs []*job
	next int
}

func newQueue() queue { return queue{waiting: make(map[key]*line)} }

func (q *queue) len() int { return q.count }

func (q *queue) push(e *job) {
	l := q.waiting[e.key]
	if l == nil {
		l = &line{}
		q.waiting[e.key] = l
		q.keys = append(q.keys, e.key)
	}
	l.jobs = append(l.jobs, e)
	q.count++
}

// pop takes the first job of k, or nil.
func (q *queue) pop(k key) *job {
	l := q.waiting[k]
	if l == nil {
		return nil
	}
	e := l.jobs[l.next]
	l.jobs[l.next] = nil
	l.next++
	q.count--
	q.drop(k, l)
	return e
}

// drop forgets an empty line.
func (q *queue) drop(k key, l *line) {
	if l.next < len(l.jobs) {
		return
	}
	delete(q.waiting, k)
	if i := slices.Index(q.keys, k); i >= 0 {
		q.keys = slices.Delete(q.keys, i, i+1)
	}
}

// remove takes a job out of the middle; false when it does not wait.
func (q *queue) remove(e *job) bool {
	l := q.waiting[e.key]
	if l == nil {
		return false
	}
	i := slices.Index(l.jobs[l.next:], e)
	if i < 0 {
		return false
	}
	l.jobs = slices.Delete(l.jobs, l.next+i, l.next+i+1)
	q.count--
	q.drop(e.key, l)
	return true
}

// drain takes everything.
func (q *queue) drain() []*job {
	var all []*job
	for _, k := range q.keys {
		l := q.waiting[k]
		all = append(all, l.jobs[l.next:]...)
	}
	*q = newQueue()
	return all
}
