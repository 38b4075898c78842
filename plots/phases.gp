# SPDX-License-Identifier: Apache-2.0
# Where the time of a dispatch goes: phases stacked to 100 %, a bar per transport and size.
ep_top = ep_head + 21 * |ep_series| + 16
ep_bottom = ep_top + 300
ep_h = ep_bottom + 150
eval ep_open
eval ep_place
set key at screen sx(4),sy(ep_head) top left
set xrange [0.4:|ep_bar| + 0.6]
set yrange [0:100]
set xtics () rotate by 40 right font ep_font.',13' offset 0,0.2
do for [j = 1:|ep_bar|] { set xtics add (ep_bar[j] j) }
unset grid
set grid ytics ls 100
set boxwidth 0.7
set style fill solid 1 noborder
array colour[5] = ['#E69F00', '#CC79A7', '#0072B2', '#009E73', '#999999']
file = ep_name.'.tsv'
plot for [i = |ep_series|:1:-1] file using (series(i, column('bar'))):(column('share_upto') * 100) with boxes lc rgb colour[i] title ep_series[i], \
     for [i = 0:1] file using (column('share') >= 0.08 && (column('series') == 3) == i ? column('bar') : NaN):((column('share_upto') - column('share') / 2) * 100):(sprintf('%.0f', column('share') * 100)) with labels font ep_font.',13' tc rgb (i ? '#ffffff' : '#000000') notitle
