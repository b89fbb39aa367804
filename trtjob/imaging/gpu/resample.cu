// Resizes images into the rows of a batch: each pixel is the mean of those around its place in the image, weighted by
// their distance (a triangle). With a reach of 1 that is bilinear interpolation; with as many pixels as a new one
// covers, it is Pillow's BILINEAR. trtjob/imaging/resampling.py says which of them a model wants.

struct Row {
    const unsigned char *pixels;     // RGB, or grey
    long long pitch;                 // bytes from one line to the next
    int width, height, channels;     // of the image
    int number;                      // of the row in the batch
    int left, top, right, bottom;    // where in the input the image lies; the rest is padding
    float first_x, first_y;          // in the image, in pixels: the place of the input's first pixel
    float step_x, step_y;            // ... and how far it is to the next one's
    float reach_x, reach_y;          // how far around a place pixels count
};

// The values of `color`, as trtjob/imaging/gpu/decoder.py has them.
enum { RGB, BGR, GRAY };

__device__ static unsigned char rounded(float value) {
    return (unsigned char)fminf(fmaxf(value + 0.5f, 0.0f), 255.0f);
}

extern "C" __global__ void resample(
    const Row *rows, unsigned char *batch, int width, int height, int channels, int color, int padding) {
    const int x = blockIdx.x * blockDim.x + threadIdx.x;
    const int y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= width || y >= height) return;
    const Row row = rows[blockIdx.z];
    unsigned char *pixel = batch + (((long long)row.number * height + y) * width + x) * channels;
    if (x < row.left || x >= row.right || y < row.top || y >= row.bottom) {
        for (int channel = 0; channel < channels; ++channel) pixel[channel] = (unsigned char)padding;
        return;
    }
    const float at_x = row.first_x + x * row.step_x, at_y = row.first_y + y * row.step_y;
    const int from_x = max(0, (int)ceilf(at_x - row.reach_x)), to_x = min(row.width - 1, (int)floorf(at_x + row.reach_x));
    const int from_y = max(0, (int)ceilf(at_y - row.reach_y)), to_y = min(row.height - 1, (int)floorf(at_y + row.reach_y));
    float total = 0.0f, red = 0.0f, green = 0.0f, blue = 0.0f;
    for (int j = from_y; j <= to_y; ++j) {
        const unsigned char *line = row.pixels + j * row.pitch;
        const float weight_y = 1.0f - fabsf(j - at_y) / row.reach_y;
        for (int i = from_x; i <= to_x; ++i) {
            const float weight = weight_y * (1.0f - fabsf(i - at_x) / row.reach_x);
            const unsigned char *source = line + i * row.channels;
            total += weight;
            red += weight * source[0];
            green += weight * source[row.channels > 1 ? 1 : 0];
            blue += weight * source[row.channels > 2 ? 2 : 0];
        }
    }
    const float by = 1.0f / total;
    const unsigned char r = rounded(red * by), g = rounded(green * by), b = rounded(blue * by);
    if (color == GRAY) {
        // As OpenCV weighs them (color_rgb.simd.hpp: ITU-R BT.601, in 15 bits).
        pixel[0] = (unsigned char)((r * 9798 + g * 19235 + b * 3735 + (1 << 14)) >> 15);
    } else {
        pixel[0] = color == RGB ? r : b;
        pixel[1] = g;
        pixel[2] = color == RGB ? b : r;
    }
}
