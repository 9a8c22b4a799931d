package s3

import (
	"context"
	"fmt"
	"io"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"berth/base/fault"
)

// tries is how often a reader that was cut off asks for the rest.
const tries = 4

// object reads an object from any offset. It lives within one request, whose context it needs for the requests of its own.
type object struct {
	driver *Driver
	ctx    context.Context
	key    string
	size   int64
	offset int64
	body   io.ReadCloser // from offset on; nil: not asked for yet
	failed int           // in a row
}

func (o *object) Read(p []byte) (int, error) {
	for {
		if o.offset >= o.size {
			return 0, io.EOF
		}
		if o.body == nil {
			if err := o.ask(); err != nil {
				return 0, err
			}
		}
		n, err := o.body.Read(p)
		o.offset += int64(n)
		if n > 0 {
			o.failed = 0
			return n, nil
		}
		if err == nil {
			return 0, nil
		}
		// The connection broke, or ended early: go on from here.
		o.Close()
		if o.failed++; o.failed == tries || o.ctx.Err() != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return 0, storeError(o.key, err)
		}
	}
}

func (o *object) ask() error {
	k, err := o.driver.key(o.key)
	if err != nil {
		return err
	}
	in := &s3.GetObjectInput{Bucket: o.driver.bucket, Key: k}
	if o.offset > 0 {
		in.Range = aws.String(fmt.Sprintf("bytes=%d-", o.offset))
	}
	out, err := o.driver.client.GetObject(o.ctx, in)
	if err != nil {
		return storeError(o.key, err)
	}
	o.body = out.Body
	return nil
}

func (o *object) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += o.offset
	case io.SeekEnd:
		offset += o.size
	}
	if offset < 0 {
		return 0, fault.New(fault.Invalid, "%s: a place before the beginning", o.key)
	}
	if offset != o.offset {
		o.Close()
		o.offset = offset
	}
	return offset, nil
}

func (o *object) Close() error {
	if o.body == nil {
		return nil
	}
	err := o.body.Close()
	o.body = nil
	return err
}
