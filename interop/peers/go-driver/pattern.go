package driver

import "io"

// Pattern reads size bytes of the test content: byte i is (i ^ i>>8 ^ i>>16) & 255.
func Pattern(size int64) io.Reader { return &pattern{size: size} }

type pattern struct{ at, size int64 }

func (p *pattern) Read(b []byte) (int, error) {
	if p.at == p.size {
		return 0, io.EOF
	}
	n := int(min(int64(len(b)), p.size-p.at))
	for i := range b[:n] {
		at := p.at + int64(i)
		b[i] = byte(at ^ at>>8 ^ at>>16)
	}
	p.at += int64(n)
	return n, nil
}
