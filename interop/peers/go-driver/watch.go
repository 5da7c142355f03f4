package driver

import (
	"context"
	"sync"
	"time"

	h3qlog "github.com/quic-go/quic-go/http3/qlog"
	"github.com/quic-go/quic-go/qlogwriter"
)

// A watch is a qlog trace that also keeps what http3 reads from the control stream and tells in no other way: the
// number in GOAWAY, and one of the SETTINGS. It wraps the trace that writes a file, if there is one.
type watch struct {
	file            qlogwriter.Trace // nil without a qlog folder
	goaways         chan uint64
	mutex           sync.Mutex
	maxFieldSection int64         // SETTINGS_MAX_FIELD_SECTION_SIZE, not positive when absent
	open            int           // recorders
	closed          chan struct{} // all recorders are closed, and the file is written
}

func newWatch() *watch {
	return &watch{goaways: make(chan uint64, 16), closed: make(chan struct{})}
}

// AddProducer is called by each layer that has events.
func (w *watch) AddProducer() qlogwriter.Recorder {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.open++
	r := &recorder{watch: w}
	if w.file != nil {
		r.file = w.file.AddProducer()
	}
	return r
}

// SupportsSchemas is asked for by quic-go 0.63; later releases do not ask.
func (w *watch) SupportsSchemas(string) bool { return true }

// finish waits until all is written, for a moment.
func (w *watch) finish() {
	select {
	case <-w.closed:
	case <-time.After(time.Second):
	}
}

func (w *watch) waitGoaway(ctx context.Context) (uint64, error) {
	select {
	case stream := <-w.goaways:
		return stream, nil
	case <-ctx.Done():
		return 0, Timeout("no GOAWAY")
	}
}

type recorder struct {
	*watch
	file qlogwriter.Recorder
}

// RecordEvent looks for the two frames, and passes everything on to the file.
func (r *recorder) RecordEvent(event qlogwriter.Event) {
	if r.file != nil {
		r.file.RecordEvent(event)
	}
	parsed, ok := event.(h3qlog.FrameParsed)
	if !ok {
		return
	}
	switch frame := parsed.Frame.Frame.(type) {
	case h3qlog.GoAwayFrame:
		select {
		case r.goaways <- uint64(frame.StreamID):
		default:
		}
	case h3qlog.SettingsFrame:
		r.mutex.Lock()
		defer r.mutex.Unlock()
		r.maxFieldSection = frame.MaxFieldSectionSize
	}
}

// Close ends one layer's part.
func (r *recorder) Close() (err error) {
	if r.file != nil {
		err = r.file.Close()
	}
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.open--
	if r.open == 0 {
		close(r.closed)
	}
	return err
}
